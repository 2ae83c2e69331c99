"""Nothing measured on held-out runs reaches their prediction. Where nothing can be learnt, no model has skill.

This is tested for new devices with few runs, for families of models left out, and from a public table to its scores.
"""

import csv
import json

import numpy as np
import pytest
import synthetic
import worlds
from jouleline.model.fit.fitting import fit_split
from jouleline.model.fit.predict import predict_split
from jouleline.model.judge.splits import split_runs
from jouleline.public.judge import judge
from jouleline.report import page
from scramble import scrambled

OPTIONS = {"starts": 4, "bootstrap": 0, "profile": False, "inner_parts": 2}
NAMES = ("predicted_time_s", "predicted_energy_j", "energy_lo95_j", "energy_hi95_j")


def families_of_models():
    columns = synthetic.table(36, seed=3, strategies=synthetic.SINGLE)
    kinds = np.where(np.arange(36) % 3, "bert", "roberta").astype(object)
    return columns | {
        "model_type": kinds,
        "family": np.char.add(columns["family"].astype(str), kinds.astype(str)),
    }


def one_fold(columns, split_name, ending):
    """A split with one of its folds: the first whose name ends in this way."""
    split = split_runs(columns, split_name, {"draws": 1})
    return split | {"folds": [next(fold for fold in split["folds"] if fold["fold"].endswith(ending))]}


FOLDS = [
    (worlds.world, "H6", "zero-shot"),
    (worlds.world, "H6", "3-runs"),
    (worlds.world, "H6", "5-runs-planned"),
    (families_of_models, "H7", "roberta"),
]


@pytest.mark.parametrize("model", ["roofline", pytest.param("hybrid", marks=pytest.mark.long)])
@pytest.mark.parametrize(("make", "split_name", "ending"), FOLDS, ids=[fold[2] for fold in FOLDS])
def test_nothing_measured_on_what_is_held_out_moves_its_prediction(make, split_name, ending, model):
    columns = make()
    split = one_fold(columns, split_name, ending)
    held = np.isin(columns["run_id"].astype(str), split["folds"][0]["test"])
    assert 0 < held.sum() < len(held)
    found = []
    for one in (columns, scrambled(columns, held)):
        assert split_runs(one, split_name, {"draws": 1}) == split_runs(columns, split_name, {"draws": 1})
        table = predict_split(one, split, fit_split(one, split, model, None, OPTIONS))
        steps = dict(zip(one["run_id"].tolist(), one["steps"], strict=True))
        window = np.array([steps[run_id] for run_id in table["run_id"]])
        found.append([table[name].astype(float) / window for name in NAMES])
    assert np.isfinite(found[0][1]).all()
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("model", ["roofline", pytest.param("hybrid", marks=pytest.mark.long)])
@pytest.mark.parametrize(("make", "split_name", "ending"), FOLDS[1:], ids=[fold[2] for fold in FOLDS[1:]])
def test_permuted_targets_show_no_skill(make, split_name, ending, model):
    """The time and energy of a step are those of another row. No model may be better than their mean."""
    columns = make()
    mixed = np.random.default_rng(4).permutation(len(columns["run_id"]))
    columns |= {name: columns[name][mixed] for name in ("time_s", "energy_j", "mean_power_w")}
    split = one_fold(columns, split_name, ending)
    table = predict_split(columns, split, fit_split(columns, split, model, None, OPTIONS))
    log_error = np.log(table["predicted_energy_j"].astype(float) / table["energy_j"].astype(float))
    spread = np.log(table["energy_j"].astype(float))
    assert np.sqrt(np.mean(log_error**2)) > 0.9 * spread.std()


def test_nothing_measured_on_what_is_held_out_reaches_the_scores_of_a_public_table(tmp_path, monkeypatch):
    """The fits of `make public`. Everything that a held-out row of the file says of its time and energy is changed."""
    monkeypatch.setattr(page, "SECTIONS", (page.provenance,))
    columns = synthetic.table(24)
    names = ("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch", "time_s", "energy_j")
    constants = {"device": synthetic.DEVICE, "device_count": 1, "tensor_parallel": 1, "zero_stage": 0}
    origin = {"citation": "nobody", "licence": "MIT", "file": "t.csv", "sha256": None}
    mapping = {
        "columns": {name: name for name in names},
        "constants": constants | {"precision": "bf16", "steps": 1},
        "origin": origin | {"models": ["roofline", "flops"], "splits": {"H0": {"seeds": 1}}},
    }
    rows, fits = [{name: columns[name][row] for name in names} for row in range(24)], []
    for number in range(2):
        path = tmp_path / f"{number}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        list(judge("made_up", mapping, path, tmp_path / str(number)))
        fits.append(
            [
                json.loads((tmp_path / str(number) / "fit" / m / "H0.json").read_text())
                for m in ("roofline", "flops")
            ]
        )
        rows = with_held_out_changed(rows, tmp_path / str(number) / "runs.parquet")
    for before, after in zip(*fits, strict=True):
        for key in ("state", "intervals", "train_digest"):
            assert before["folds"][0][key] == after["folds"][0][key]


def with_held_out_changed(rows, runs):
    """The rows of the file, with other targets where H0 holds them out."""
    from jouleline.model.table.runs import read_runs

    columns = read_runs(runs)
    held = np.isin(columns["run_id"].astype(str), split_runs(columns, "H0", {"seeds": 1})["folds"][0]["test"])
    assert 0 < held.sum() < len(rows)
    return [
        row | ({"time_s": 3 * row["time_s"], "energy_j": 2 * row["energy_j"]} if out else {})
        for row, out in zip(rows, held.tolist(), strict=True)
    ]
