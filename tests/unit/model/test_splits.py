"""Splits: families stay together, and a split that cannot be made says why."""

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.splits import SPLITS, split_runs
from jouleline.model.table import take


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
    from jouleline.model.table import family_names

    return {**columns, "family": np.array(family_names(columns), dtype=object)}


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
