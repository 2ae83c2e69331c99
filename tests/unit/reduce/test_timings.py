"""Where a job's time went: what the clocks say, what Slurm says, and what nobody says."""

import re
from datetime import datetime
from pathlib import Path

import pytest
from jouleline.reduce import timings
from jouleline.schemas import to_arrow
from jouleline.schemas.timings import PHASES, TIMINGS

STARTED = "2026-01-02T03:04:05Z"
STARTED_S = datetime.fromisoformat(STARTED).timestamp()
RECORD = {
    **{"run_id": "a-r1", "status": "ok", "started_utc": STARTED, "ended_utc": "2026-01-02T03:04:35Z"},
    **{"wall_s": 30.0, "environment": {"slurm": {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}}},
    "training": {
        "startup_s": {"imports": 5.0, "data": 0.5, "model": 1.0, "engine": 1.5, "init": 0.25, "sidecar": 2.0},
        "warmup_step_times_s": [1.0, 0.5, 0.5],
        "time_s": 10.0,
    },
}


def test_the_phases_of_the_agent_add_up_to_its_time():
    row = timings.row(RECORD, 3.0, None)
    assert (row["imports_s"], row["model_s"], row["rendezvous_s"], row["warmup_s"]) == (5.0, 3.0, 0.25, 2.0)
    assert row["rest_s"] == pytest.approx(30.0 - (5.0 + 3.0 + 0.25 + 2.0 + 2.0 + 10.0 + 3.0))
    to_arrow(TIMINGS, [row])


def test_the_interpreter_starts_before_the_agents_clock():
    slow = {**RECORD["training"], "startup_s": {**RECORD["training"]["startup_s"], "python": 1.5}}
    slurm = {"submit_s": STARTED_S - 100, "start_s": STARTED_S - 4, "end_s": None}
    row = timings.row({**RECORD, "training": slow}, 3.0, slurm)
    assert row["python_s"] == 1.5 and row["snakemake_s"] == 2.5
    assert row["rest_s"] == timings.row(RECORD, 3.0, None)["rest_s"]


def test_what_no_clock_saw_is_null():
    row = timings.row(RECORD, None, None)
    assert row["evaluation_s"] is None and row["wait_s"] is None and row.get("queue_s") is None
    failed = timings.row({**RECORD, "status": "failed", "training": None}, None, None)
    assert failed["rest_s"] is None and failed["imports_s"] is None and failed["wall_s"] == 30.0


def test_every_clock_that_a_run_keeps_has_its_phase():
    """A clock that is added to the agent or the rank must find its phase, or it would count as the rest."""
    root = Path(timings.__file__).parents[1] / "measure"
    known = {part for parts in timings._STARTUP.values() for part in parts}
    for name in ("node/agent", "train/agent", "train/rank", "train/trainer"):
        text = (root / f"{name}.py").read_text()
        found = set(re.findall(r'(?:times_s|startup_s)\["(\w+)"\]|[._](?:timed|startup)\("(\w+)"\)', text))
        assert found and {a or b for a, b in found} <= known, name


def test_the_job_is_known_from_its_submission_to_its_end():
    slurm = {"submit_s": STARTED_S - 100, "start_s": STARTED_S - 4, "end_s": STARTED_S + 33}
    row = timings.row(RECORD, 3.0, slurm)
    assert (row["queue_s"], row["snakemake_s"], row["after_s"]) == (96.0, 4.0, 3.0)
    assert timings.row(RECORD, 3.0, slurm | {"end_s": None})["after_s"] is None


def test_the_summary_is_of_what_is_known_and_shares_add_up():
    rows = [timings.row(RECORD, 3.0, None), timings.row({**RECORD, "status": "failed"}, 3.0, None)]
    summary = timings.summary(rows)
    assert [entry["phase"] for entry in summary] == [
        p.name for p in PHASES if p.name not in ("queue_s", "snakemake_s", "python_s", "wait_s", "after_s")
    ]
    assert sum(entry["share"] for entry in summary) == pytest.approx(1.0)
    assert all(entry["runs"] == 1 for entry in summary)
    assert "imports" in timings.as_text(rows) and "queue" not in timings.as_text(rows)
