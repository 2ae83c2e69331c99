"""What the scores cover: which predictions, which pairs, and which separate parts."""

import csv

import numpy as np
import pytest
import synthetic
from jouleline.model.fit.configurations import predict_file, write_columns
from jouleline.model.fit.fitting import fit_split
from jouleline.model.fit.predict import predict_split, to_arrow
from jouleline.model.judge import gates
from jouleline.model.judge.splits import split_runs
from jouleline.model.judge.validate import validate
from jouleline.report.card import score_lines
from jouleline.report.markdown import markdown
from jouleline.report.score_tables import gate_table


@pytest.fixture(scope="module")
def columns():
    return synthetic.table(24, seed=5, strategies=synthetic.SINGLE)


def predictions(columns, model, errors, split="H0", mode=None, fold="seed-00"):
    """Predictions that are off by the given fractions [R]. NaN: not identified. The intervals reach 10 % to either
    side."""
    errors, count = np.asarray(errors, dtype=float), len(columns["run_id"])
    table = {name: columns[name] for name in ("run_id", "family", "energy_source", "time_s", "energy_j")}
    labels = {"fold": fold, "model": model, "split": split, "efficiency_mode": mode, "post_run": False}
    table |= {name: np.array(np.broadcast_to(np.array(v, dtype=object), count)) for name, v in labels.items()}
    for target, unit in (("energy", "j"), ("time", "s")):
        value = columns[f"{target}_{unit}"] * (1 + errors)
        table[f"predicted_{target}_{unit}"] = value
        for level in (80, 95):
            table[f"{target}_lo{level}_{unit}"], table[f"{target}_hi{level}_{unit}"] = (
                value / 1.1,
                value * 1.1,
            )
    table |= {"extrapolates": np.zeros(count, dtype=bool), "extrapolation_axes": np.full(count, "")}
    reason = np.where(np.isfinite(errors), None, "out of reach")
    return table | {"identified": np.isfinite(errors), "reason": reason}


def energy(document, model):
    return [row for row in document["results"] if (row["model"], row["target"]) == (model, "energy")]


def cells(results, document):
    """The last row of the first table of scores in Markdown, by column."""
    lines = score_lines(results, document["noise_floor"])
    table = lines[2 : lines.index("", 2)]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in (table[0], table[-1])]
    return dict(zip(*split, strict=True))


def test_the_gaussian_process_is_paired_on_the_same_predictions(columns):
    """The process gives no value for the four hard runs. So its mean alone says nothing about the difference."""
    hard = np.arange(24) < 2
    ours = predictions(columns, "roofline", np.where(hard, 0.5, 0.05))
    process = predictions(columns, "gaussian_process", np.where(hard, np.nan, 0.04))
    document = validate(columns, [ours, process], [], {})
    (row,), (other,) = energy(document, "roofline"), energy(document, "gaussian_process")
    assert row["mape"] - other["mape"] > 0.03
    assert row["mape_above_gp"] == pytest.approx(0.01) and row["n_above_gp"] == 22
    assert other["mape_above_gp"] is None
    gate = next(gate for gate in document["gates"] if gate["name"] == "in_domain_beside_gp")
    assert gate["value"] == pytest.approx(0.01) and gate["n"] == 22
    assert "| 22 of 24 |" in next(line for line in markdown(gate_table([gate])) if "beside gp" in line)
    assert cells([other], document)["Predictions"] == "22 of 24"


def test_coverage_is_of_predictions_with_an_interval_and_says_of_how_many(columns):
    table = predictions(columns, "roofline", np.where(np.arange(24) < 12, 0.05, 0.2))
    table["energy_lo95_j"][18:] = table["energy_hi95_j"][18:] = np.nan
    document = validate(columns, [table], [], {})
    (row,) = energy(document, "roofline")
    assert row["coverage95"] == pytest.approx(12 / 18) and row["n_intervals"] == 18
    shown = cells([row], document)
    assert (shown["Cover 95"], shown["Width 95"], shown["Intervals"]) == ("67\u202f%", "×1.10", "18")
    table["energy_lo95_j"][:] = table["energy_hi95_j"][:] = np.nan
    document = validate(columns, [table], [], {"enabled": ["coverage_high"]})
    (row,) = energy(document, "roofline")
    assert row["coverage95"] is None and row["width95"] is None and row["n_intervals"] == 0
    assert "Cover 95" not in cells([row], document) and document["passed"] is False


def test_a_new_device_is_scored_by_what_was_known_of_it_and_never_pooled(columns):
    parts = {"zero-shot": 0.3, "5-runs": 0.05, "5-runs-planned": 0.02}
    folds = [
        predictions(columns, "roofline", np.full(24, error), "H6", fold=f"{synthetic.DEVICE}-{part}")
        for part, error in parts.items()
    ]
    table = {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]}
    document = validate(columns, [table], [], {})
    found = {row["stratum"]: row["mape"] for row in energy(document, "roofline")}
    assert found == pytest.approx(parts)
    judged = {gate["name"]: gate for gate in document["gates"] if gate["split"] == "H6"}
    assert (judged["unseen_device"]["passed"], judged["unseen_device_5_runs"]["passed"]) == (False, True)
    assert judged["unseen_device_5_runs"]["value"] == pytest.approx(0.05)
    assert cells(energy(document, "roofline"), document)[""].startswith("H6 zero-shot")


def test_only_h6_has_parts():
    assert gates.stratum("H6", "L4-5-runs-planned", "L4") == "5-runs-planned"
    assert (
        gates.stratum("H1", "L4-d256-h4-f1024", "L4") is None
    )  # a device may have the name of an architecture


def test_an_interval_that_reaches_anywhere_is_none_and_an_empty_cell(columns, tmp_path):
    """Two families give a Student-t interval with a factor of 1e11 and more."""
    split = split_runs(columns, "all", {})
    fit = fit_split(columns, split, "constant", None, {"bootstrap": 0, "profile": False})
    for mode in fit["folds"][0]["intervals"].values():
        mode["energy"]["inside"] = {"0.80": 0.1, "0.95": 27.5}
    table = to_arrow(predict_split(columns, split, fit)).to_pydict()
    assert set(table["energy_hi95_j"]) == set(table["energy_lo95_j"]) == {None}
    assert None not in table["energy_hi80_j"]
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    names = ("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch", "precision", "attention")
    write_columns({name: columns[name][:1] for name in names}, rows)
    predict_file(fit, rows, out)
    (cells,) = csv.DictReader(out.read_text().splitlines())
    assert cells["energy_lo95_j"] == cells["energy_hi95_j"] == "" and float(cells["energy_lo80_j"]) > 0


@pytest.mark.parametrize(
    ("split", "fold", "part"),
    [
        ("H6", "gpu-5-runs", "5-runs"),
        ("H6", "gpu-5-runs-draw-3", "5-runs"),
        ("H6", "gpu-5-runs-planned", "5-runs-planned"),
        ("H6", "gpu-zero-shot", "zero-shot"),
        ("H6", "other-5-runs", None),
        ("H0", "gpu-5-runs", None),
    ],
)
def test_the_draws_of_a_few_runs_are_one_part(split, fold, part):
    assert gates.stratum(split, fold, "gpu") == part
