"""The four scripts from a runs table to validation.json, as the workflow calls them."""

import json

import numpy as np
import pytest
import synthetic
from jouleline.model.table.runs import write_runs
from jouleline.report.numbers import percent
from jouleline.schemas import write_table
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.model import PREDICTIONS
from programs import script
from pyarrow import parquet

MODELS = ("roofline", "paper", "constant")


def chain(folder, columns, gates="{}"):
    """Split, fit, predict and validate; returns the last call."""
    write_runs(columns, folder / "runs.parquet")
    runs, split = ("--runs", folder / "runs.parquet"), folder / "H0.json"
    done = script("split_runs", *runs, "--split", "H0", "--options", '{"seeds": 2}', "--out", split)
    assert done.returncode == 0, done.stderr
    predictions, fits = [], []
    for model in MODELS:
        fits.append(folder / f"{model}.json")
        predictions.append(folder / f"{model}.parquet")
        options = ("--options", '{"starts": 8}')
        done = script("fit_model", *runs, "--split", split, "--model", model, *options, "--out", fits[-1])
        assert done.returncode == 0, done.stderr
        done = script("predict_holdout", *runs, "--split", split, "--fit", fits[-1], "--out", predictions[-1])
        assert done.returncode == 0, done.stderr
    out = ("--out", folder / "validation.json")
    return script(
        "validate_holdout",
        *runs,
        "--predictions",
        *predictions,
        "--fits",
        *fits,
        "--gates",
        gates,
        *out,
    )


@pytest.fixture(scope="module")
def estimated(tmp_path_factory):
    """A small table of one and two CPU ranks with estimated energy, as the demonstration makes."""
    folder = tmp_path_factory.mktemp("pipeline")
    strategies = ((1, 1, 0), (1, 1, 0), (2, 1, 1), (2, 1, 3), (2, 2, 0))
    columns = synthetic.table(28, strategies=strategies, device="Example CPU", source="estimate")
    columns["status"][0], columns["energy_j"][0] = "oom", np.nan
    done = chain(folder, columns)
    assert done.returncode == 0, done.stderr
    return folder


def test_validation_has_every_model_and_says_that_energy_is_estimated(estimated):
    document = json.loads((estimated / "validation.json").read_text())
    assert document["energy_sources"] == ["estimate"]
    results = {(row["model"], row["target"]): row for row in document["results"] if not row["post_run"]}
    assert {model for model, _ in results} == set(MODELS)
    assert results["roofline", "energy"]["mape"] < 0.1 < results["constant", "energy"]["mape"]
    assert document["passed"] is True and not any(gate["enabled"] for gate in document["gates"])


def test_the_row_out_of_memory_is_excluded_with_its_reason(estimated):
    split = json.loads((estimated / "H0.json").read_text())
    assert split["excluded"] == [{"run_id": "row-00001", "reason": "status oom"}]


def test_predictions_have_the_schema(estimated):
    for model in MODELS:
        assert parquet.read_schema(estimated / f"{model}.parquet").equals(
            PREDICTIONS.arrow_schema(), check_metadata=True
        )


def test_an_enabled_gate_that_fails_is_written_and_fails_the_target_behind(estimated, tmp_path):
    gates = json.dumps({"enabled": ["in_domain"], "limits": {"in_domain": 0.0001}})
    out = tmp_path / "validation.json"
    words = ["--predictions", estimated / "roofline.parquet", "--gates", gates, "--out", out]
    assert script("validate_holdout", "--runs", estimated / "runs.parquet", *words).returncode == 0
    assert json.loads(out.read_text())["passed"] is False
    assert script("enforce_gates", "--validation", out).returncode == 1


def test_gates_are_enforced_by_what_they_reached_and_of_how_many(estimated, tmp_path):
    document = json.loads((estimated / "validation.json").read_text())
    gates = {gate["name"]: gate for gate in document["gates"]}
    for name in ("in_domain", "unseen_count"):
        gates[name] |= {
            "enabled": True,
            "limit": 0.0001,
            "passed": None if gates[name]["value"] is None else False,
        }
    (tmp_path / "validation.json").write_text(json.dumps(document))
    done = script("enforce_gates", "--validation", tmp_path / "validation.json")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"in_domain: mape {gates['in_domain']['value']:.3g}, limit <= 0.0001" in done.stderr
    assert "unseen_count: mape no value (0 of 0 predictions)" in done.stderr


def test_the_scores_of_a_campaign_are_written_with_their_counts(estimated, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "runs.parquet").symlink_to(estimated / "runs.parquet")
    (tmp_path / "validation.json").symlink_to(estimated / "validation.json")
    done = script("score_campaign", "--results", tmp_path, "--out", tmp_path / "scores.md")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "scores.md").read_text().splitlines()
    gate = next(line for line in lines if line.startswith("| in domain |")).split(" | ")
    results = json.loads((estimated / "validation.json").read_text())["results"]
    row = next(row for row in results if (row["model"], row["target"]) == ("roofline", "energy"))
    assert gate[5] == str(row["n"]) and percent(row["mape"]) == gate[4]


def test_bad_input_is_one_line_and_no_file(tmp_path):
    write_runs(synthetic.table(10), tmp_path / "runs.parquet")
    for name, words, message in (
        ("split_runs", ["--split", "H9"], "there is no split H9"),
        ("fit_model", ["--split", tmp_path / "none.json", "--model", "roofline"], "missing file"),
    ):
        done = script(name, "--runs", tmp_path / "runs.parquet", *words, "--out", tmp_path / "out.json")
        assert done.returncode == 2 and message in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_scoring_without_the_public_tables_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("JOULELINE_PUBLIC_DATA", raising=False)
    done = script("score_public_tables", "--out", tmp_path / "scores.md")
    assert done.returncode == 2 and done.stderr.startswith("error: no folder of public tables")
    done = script("score_public_tables", "--data", tmp_path, "--out", tmp_path / "scores.md")
    assert done.returncode == 2 and "missing file" in done.stderr and not (tmp_path / "scores.md").exists()


def test_the_noise_is_of_all_usable_runs_also_where_too_few_are_for_any_split(tmp_path):
    """Three configurations, two of them measured twice, and one run that a check keeps out."""
    columns = synthetic.table(3, replicates=2, noise=0.1)
    columns["run_id"] = np.array([f"row-{row}" for row in range(6)], dtype=object)
    write_runs(columns, tmp_path / "runs.parquet")
    failed = {"run_id": "row-5", "name": "loss_finite", "severity": "error", "passed": False}
    write_table(CHECKS, [failed | {"message": "nan", "details": "{}"}], tmp_path / "checks.parquet")
    write_table(PREDICTIONS, [], tmp_path / "none.parquet")
    words = ["--runs", tmp_path / "runs.parquet", "--checks", tmp_path / "checks.parquet"]
    words += ["--predictions", tmp_path / "none.parquet", "--out", tmp_path / "validation.json"]
    done = script("validate_holdout", *words)
    assert done.returncode == 0, done.stderr
    floor = json.loads((tmp_path / "validation.json").read_text())["noise_floor"]
    logs = np.log(columns["energy_j"] / columns["steps"])
    spread = np.sqrt(((logs[[0, 2]] - logs[[1, 3]]) ** 2).sum() / 2 / 2)
    assert floor["n_groups"] == 2 and floor["energy_cv"] == pytest.approx(spread)
