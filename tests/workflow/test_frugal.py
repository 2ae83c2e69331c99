"""A campaign that chooses its own rows: rounds are targets, and only chosen runs are jobs."""

import json
import re

import pytest

from tests.workflow.checkout import Checkout

GRID = {
    "defaults": {"vocab_size": 2048, "micro_batch": 4},
    "blocks": [
        {
            "axes": {"layers": [1, 2, 3], "hidden": [32, 64], "seq_len": [32, 64]},
            "derived": {"heads": "hidden // 32", "intermediate": "4 * hidden"},
            "set": {"replicates": 2},
        }
    ],
}
PROTOCOL = {"device": "cpu", "window_s": 0.5, "window_steps": 3, "warmup_steps": 1, "idle_s": 0.2}
PROTOCOL |= {"eval_batches": 1, "calibration_s": 5}
CAMPAIGN = {
    "campaign": "frugal",
    "protocol": PROTOCOL,
    "grid": {**GRID, "frugal": {"first": 8, "batch": 2, "until": {"rounds": 2}}},
    "analysis": {"models": ["roofline"], "splits": ["H0"]},
}


def jobs(text: str) -> dict[str, int]:
    """{rule: count} of a dry run."""
    table = text.rpartition("Job stats:")[2]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


def rows(checkout, number):
    path = checkout.root / f"results/frugal/rounds/{number}/rows.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_only_chosen_rows_are_jobs_and_the_plan_says_what_they_take(tmp_path):
    checkout = Checkout(tmp_path / "checkout", CAMPAIGN)
    assert "measure_run" not in checkout.snakemake("--cores", "1", "plan").stdout
    said = (checkout.root / "results/frugal/logs/plan_campaign.log").read_text()
    assert "The rest of the grid" in said and "16 runs to measure" in said and "8 runs to measure" in said
    planned = checkout.planned()
    chosen = {entry["run_id"] for entry in rows(checkout, 1)["runs"]}
    found = {path.split("/")[-2] for path in planned["measure_run"]}
    assert found == chosen and len(chosen) == 8 and all(run_id.endswith("-r1") for run_id in chosen)
    assert any(path.endswith("shard-1.parquet") for path in planned["integrate_energy"])


@pytest.mark.long
def test_rounds_follow_each_other_and_go_on_when_more_is_asked_for(tmp_path):
    checkout = Checkout(tmp_path / "checkout", CAMPAIGN)
    checkout.snakemake("--cores", "2", timeout=1200)
    first, second, last = (rows(checkout, number) for number in (1, 2, 3))
    assert len(first["runs"]) == 8 and len(second["runs"]) == 2 and last["stopped"] == "2 rounds are done"
    assert len(list(checkout.root.glob("results/frugal/runs/*/run.json"))) == 10
    assert 'id="rounds"' in (checkout.root / "results/frugal/report.html").read_text()
    assert "Nothing to be done" in checkout.snakemake("--cores", "2").stdout
    # With another end it goes on from there. What was chosen and measured stays.
    times = {path: path.stat().st_mtime_ns for path in checkout.root.glob("results/frugal/runs/*/run.json")}
    checkout.campaign["grid"]["frugal"]["until"] = {"rounds": 3}
    checkout.save()
    checkout.snakemake("--cores", "2", timeout=1200)
    assert rows(checkout, 1)["runs"] == first["runs"] and rows(checkout, 2)["runs"] == second["runs"]
    assert len(rows(checkout, 3)["runs"]) == 2 and rows(checkout, 4)["stopped"] == "3 rounds are done"
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())
    assert len(list(checkout.root.glob("results/frugal/runs/*/run.json"))) == 12
    said = checkout.snakemake("-n", "--config", "partial=true").stdout
    assert "measure_run" not in jobs(said)
