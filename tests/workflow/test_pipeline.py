"""The whole pipeline on real input: rows are fine-tuned, measured, tabled, fitted, validated, reported."""

import json
import sys
import zipfile
from pathlib import Path

import forked
import pyarrow.parquet as pq
import pytest

from tests.workflow.checkout import Checkout

SHAPE = {"hidden": 64, "heads": 2, "intermediate": 256, "seq_len": 32, "micro_batch": 4}
CAMPAIGN = {
    "campaign": "tiny",
    "node": {"gpus": 2, "exclusive": False},
    "protocol": {
        **{"device": "cpu", "meter": "estimate", "window_s": 0.6, "window_steps": 2, "warmup_steps": 2},
        **{"warmup_max_steps": 4, "idle_s": 0.2, "eval_batches": 1, "calibration_s": 3},
    },
    "grid": {
        "defaults": {"vocab_size": 512},
        "blocks": [
            {"axes": {"layers": [1, 2, 3, 4]}, "set": SHAPE},
            {"axes": {"layers": [2]}, "set": SHAPE, "cases": [{"gpus_per_node": 2, "zero_stage": 3}]},
        ],
    },
    "analysis": {"models": ["roofline", "constant"], "splits": ["H1"], "shards": 2},
    "report": {"traces": 1},
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("tiny") / "checkout", CAMPAIGN)
    arguments = ["--resources", "measuring=1", "--cores", "2", "report", "validation"]
    text = checkout.snakemake(*arguments, timeout=600).stdout
    assert "steps (100%) done" in text
    assert "Nothing to be done" in checkout.snakemake(*arguments).stdout
    return checkout.root / "results" / "tiny"


def test_every_row_was_trained_and_measured(campaign):
    runs = pq.read_table(campaign / "tables/runs.parquet").to_pylist()
    assert len(runs) == 5 and {run["status"] for run in runs} == {"ok"}
    assert {run["energy_source"] for run in runs} == {"estimate"}
    assert all(run["energy_j"] > 0 and run["energy_edge_u_j"] is not None for run in runs)
    assert {run["device_count"] for run in runs} == {1, 2}
    assert all(run["tokens"] == run["samples"] * run["seq_len"] for run in runs)
    # The window's mean power is between idle and two busy cores, as the estimate declares them.
    assert all(5.0 <= run["mean_power_w"] <= 25.5 for run in runs)


def test_no_check_found_an_error(campaign):
    checks = pq.read_table(campaign / "tables/checks.parquet").to_pylist()
    assert not [c for c in checks if c["severity"] == "error" and c["passed"] is False]
    assert {c["name"] for c in checks if c["passed"] is False} >= {"energy_measured"}


def test_every_model_was_judged_on_runs_it_had_not_seen(campaign):
    validation = json.loads((campaign / "validation.json").read_text())
    results = [r for r in validation["results"] if r["target"] == "energy"]
    assert {(r["model"], r["split"]) for r in results} == {("roofline", "H1"), ("constant", "H1")}
    folds = json.loads((campaign / "splits/H1.json").read_text())["folds"]
    assert folds and all(not set(fold["train"]) & set(fold["test"]) for fold in folds)


def test_the_report_stands_alone_and_says_that_the_energy_is_estimated(campaign):
    page = (campaign / "report.html").read_text()
    assert "estimated" in page.lower() and "<svg" in page
    assert 'src="http' not in page and "<script src" not in page
    for run in pq.read_table(campaign / "tables/runs.parquet", columns=["run_id"]).to_pylist():
        assert run["run_id"] in page


def test_parts_of_the_report_are_files_that_snakemakes_own_report_carries(campaign):
    parts = campaign / "report"
    named = json.loads((parts / "report.json").read_text())
    blocks = [block for section in named["sections"] for block in section["blocks"]]
    figures = [file for block in blocks for figure in block.get("figures", []) for file in figure["files"]]
    tables = [block["file"] for block in blocks if block["kind"] == "table"]
    assert len(figures) > 9 and len(tables) > 9
    assert all((parts / name).stat().st_size for name in (*figures, *tables))
    checkout = campaign.parents[1]
    command = [sys.executable, "-m", "snakemake", "--configfile", "campaign.yaml"]
    command += ["--report", "carried.zip", "report"]
    forked.run(forked.SNAKEMAKE, command, cwd=checkout, check=True, capture_output=True)
    with zipfile.ZipFile(checkout / "carried.zip") as carried:
        names = {Path(name).name for name in carried.namelist()}
    assert {Path(name).name for name in (*tables, *(f for f in figures if f.endswith("svg")))} <= names


def test_tables_carry_units_and_a_dictionary(campaign):
    field = pq.read_schema(campaign / "tables/runs.parquet").field("energy_j")
    assert field.metadata[b"unit"] == b"J"
    assert "| `energy_j` | float64 | J |" in (campaign / "tables/data_dictionary.md").read_text()
