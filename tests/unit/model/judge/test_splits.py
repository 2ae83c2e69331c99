"""Splits: families stay together, and a split that cannot be made says why."""

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.features import Data
from jouleline.model.frugal.choose import measure_first
from jouleline.model.judge.splits import SPLITS, split_runs
from jouleline.model.table.runs import take


def joined(*tables):
    """Several synthetic tables as one, with run ids of their own."""
    columns = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
    columns["run_id"] = np.array([f"run-{row:03d}" for row in range(len(columns["device"]))], dtype=object)
    return columns


@pytest.fixture(scope="module")
def mixed():
    """Two devices, replicates, every strategy, two precisions and a LoRA variant."""
    first = synthetic.table(40, seed=1, replicates=2)
    second = synthetic.table(20, seed=2, device="NVIDIA H100")
    second["precision"] = np.where(np.arange(20) % 2, "bf16", "fp16").astype(object)
    second["lora_rank"] = np.where(np.arange(20) % 3, 0, 8)
    columns = joined(first, second)
    from jouleline.model.table.runs import family_names

    return {**columns, "family": np.array(family_names(columns), dtype=object)}


def test_a_family_of_models_may_be_left_out():
    columns = synthetic.table(40, seed=1)
    columns["model_type"] = np.where(np.arange(40) % 4, "bert", "roberta").astype(object)
    columns["family"] = np.array([f"family-{row}" for row in range(40)], dtype=object)
    folds = {fold["fold"]: fold for fold in split_runs(columns, "H7", {})["folds"]}
    assert set(folds) == {"bert", "roberta"}
    assert set(folds["roberta"]["test"]) == set(columns["run_id"][columns["model_type"] == "roberta"])


@pytest.mark.parametrize("name", [name for name in SPLITS if name not in {"all", "holdout"}])
def test_families_never_straddle(mixed, name):
    document = split_runs(mixed, name, {})
    assert document["folds"], document["reason"]
    family = dict(zip(mixed["run_id"], mixed["family"], strict=True))
    for fold in document["folds"]:
        train, test = ({family[run_id] for run_id in fold[side]} for side in ("train", "test"))
        assert test and len(train) >= 3
        if name != "H6" or fold["fold"].endswith("zero-shot"):
            assert not train & test, fold["fold"]


def test_few_shot_runs_are_not_of_predicted_families(mixed):
    family = dict(zip(mixed["run_id"], mixed["family"], strict=True))
    for fold in split_runs(mixed, "H6", {})["folds"]:
        assert not {family[run] for run in fold["train"]} & {family[run] for run in fold["test"]}


def few_shots(columns, **options):
    """Per few-shot fold of H6: the configurations of the runs of the held-out device that train."""
    device = dict(zip(columns["run_id"], columns["device"], strict=True))
    data = Data.of(columns)
    rows = np.column_stack([data.flop, data.byte, data.columns["layers"], data.devices]).round(6).tolist()
    row = dict(zip(columns["run_id"], map(tuple, rows), strict=True))
    folds = [fold for fold in split_runs(columns, "H6", options)["folds"] if "-runs" in fold["fold"]]
    return {
        fold["fold"]: [row[run] for run in fold["train"] if device[run] == device[fold["test"][0]]]
        for fold in folds
    }


def test_few_shot_runs_are_of_different_configurations():
    """A replicate of a run does not count as a second run."""
    columns = joined(synthetic.table(6, replicates=6), synthetic.table(12, seed=2, device="NVIDIA H100"))
    found = few_shots(columns)
    assert any(name.startswith(synthetic.DEVICE) for name in found)
    for name, given in found.items():
        assert len(set(given)) == len(given) == int(name.split("-runs")[0][-1]), name


def test_few_shots_are_drawn_more_than_once_and_planned_once(mixed):
    found = few_shots(mixed, draws=3)
    ends = {name.removeprefix("NVIDIA H100-") for name in found if name.startswith("NVIDIA H100")}
    draws = {f"{shots}-runs{how}" for shots in (3, 5) for how in ("", "-draw-2", "-draw-3", "-planned")}
    assert ends == draws
    again = few_shots(mixed, draws=3, seed=1)
    for name, given in found.items():
        assert (sorted(given) == sorted(again[name])) == name.endswith("planned"), name


def test_what_to_measure_first_spans_the_table_and_reads_no_measurement(mixed):
    data = Data.of(mixed)
    rows = mixed["device"] == "NVIDIA H100"
    chosen = measure_first(data, rows, 5)
    assert rows[chosen].all() and len(set(chosen.tolist())) == 5
    for amount in (data.flop, data.launch_flop):
        assert np.ptp(np.log(amount[chosen])) > 0.7 * np.ptp(np.log(amount[rows]))
    other = {**mixed, "energy_j": mixed["energy_j"][::-1], "time_s": mixed["time_s"][::-1]}
    np.testing.assert_array_equal(measure_first(Data.of(other), rows, 5), chosen)
    assert len(measure_first(data, rows, 100)) == 20


def test_h0_draws_twenty_times_and_holds_out_three_tenths(mixed):
    folds = split_runs(mixed, "H0", {})["folds"]
    assert len(folds) == 20
    families = len(set(mixed["family"]))
    family = dict(zip(mixed["run_id"], mixed["family"], strict=True))
    assert all(len({family[run] for run in fold["test"]}) == round(0.3 * families) for fold in folds)
    assert folds[0]["test"] != folds[1]["test"]


def test_h5_trains_without_the_count_that_it_predicts(mixed):
    counts = dict(zip(mixed["run_id"], mixed["device_count"], strict=True))
    for fold in split_runs(mixed, "H5", {})["folds"]:
        held = int(fold["fold"].split("-")[0])
        assert {counts[run] for run in fold["test"]} == {held}
        assert held not in {counts[run] for run in fold["train"]}


def test_a_split_without_folds_says_why():
    columns = synthetic.table(20, strategies=synthetic.SINGLE)
    for name in ("H4", "H5", "H6", "H7"):
        document = split_runs(columns, name, {})
        assert not document["folds"] and document["reason"].startswith("not identified: ")


def test_invalid_runs_are_excluded_with_the_reason():
    columns = synthetic.table(20)
    columns["verdict"] = np.where(np.arange(20) < 2, "invalid", "valid").astype(object)
    columns["reasons"] = np.where(np.arange(20) < 2, "low_duty", "").astype(object)
    document = split_runs(columns, "all", {})
    assert len(document["folds"][0]["train"]) == 18
    assert document["excluded"][0] == {"run_id": "row-00001", "reason": "verdict invalid: low_duty"}


def test_labelled_holdout(mixed):
    family = mixed["family"][0]
    own = mixed["run_id"][mixed["family"] == family].tolist()
    labels = {run_id: {"split": "holdout"} for run_id in own}
    fold = split_runs(mixed, "holdout", {}, labels)["folds"][0]
    assert sorted(fold["test"]) == sorted(own)
    with pytest.raises(UserError, match="leaves the family"):
        split_runs(mixed, "holdout", {}, {own[0]: {"split": "holdout"}})


def test_unknown_names_are_refused(mixed):
    with pytest.raises(UserError, match="there is no split H9"):
        split_runs(mixed, "H9", {})
    with pytest.raises(UserError, match="no option sedes"):
        split_runs(mixed, "H0", {"sedes": 3})


def test_mixed_sources_are_refused():
    columns = synthetic.table(20)
    columns["energy_source"] = np.where(np.arange(20) < 2, "estimate", "nvml_counter").astype(object)
    with pytest.raises(UserError, match="mixed energy sources"):
        split_runs(columns, "H0", {})


def test_one_family_cannot_be_held_out():
    columns = take(synthetic.table(10), np.zeros(10, dtype=int))
    columns["run_id"] = np.array([f"r{i}" for i in range(10)], dtype=object)
    assert (
        split_runs(columns, "H0", {})["reason"]
        == "not identified: fewer than four families (workload and device)"
    )
