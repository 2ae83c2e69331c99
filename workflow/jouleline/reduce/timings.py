"""Where the time of each measured job went: in the queue, before the agent, and in every phase until the job's end.

Agent and ranks keep their own clocks in run.json, the marks give the evaluation; queue, start and end are Slurm's
accounting, in whole seconds. It is asked once and kept beside run.json, since accounting forgets. What no clock saw is
null, never 0.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json, write_json
from jouleline.schemas.timings import PHASES

FILE = "slurm_times.json"
JOBS_PER_QUERY = 500
# Job ids are used again when a controller loses its state: a run began within its job, give or take the clocks.
TOLERANCE_S = 60
# Phases of the startup clocks of run.json.
_STARTUP = {
    "python_s": ("python",),
    "imports_s": ("imports",),
    "rendezvous_s": ("meeting", "init"),
    "model_s": ("data", "model", "engine"),
    "wait_s": ("device_wait", "cooldown"),
    "sidecar_s": ("sidecar",),
}

Row = dict[str, Any]


def row(record: Mapping[str, Any], evaluation_s: float | None, slurm: Mapping[str, Any] | None) -> Row:
    """The timings-table row of one run: its record, the time of its evaluation by the marks, and `recorded`."""
    training = record.get("training") or {}
    clocks = training.get("startup_s") or {}
    phases = {name: _sum(clocks.get(part) for part in parts) for name, parts in _STARTUP.items()}
    phases["warmup_s"] = _sum(training.get("warmup_step_times_s") or [])
    phases |= {"window_s": training.get("time_s"), "evaluation_s": evaluation_s}
    wall_s = record.get("wall_s")
    # Only of a run whose phases are known is the rest the rest. The interpreter starts before the agent's clock.
    whole = wall_s is not None and all(
        phases[name] is not None for name in ("imports_s", "model_s", "window_s")
    )
    inside_s = _sum(value for name, value in phases.items() if name != "python_s")
    phases["rest_s"] = max(wall_s - inside_s, 0.0) if whole else None
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "wall_s": wall_s,
        **phases,
        **(_of_slurm(record, slurm, phases["python_s"] or 0.0) if slurm else {}),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _of_slurm(record: Mapping[str, Any], slurm: Mapping[str, Any], python_s: float) -> Row:
    began_s, ended_s = (
        datetime.fromisoformat(record[key]).timestamp() for key in ("started_utc", "ended_utc")
    )
    end_s = slurm["end_s"]
    return {
        "queue_s": slurm["start_s"] - slurm["submit_s"],
        "snakemake_s": max(began_s - python_s - slurm["start_s"], 0.0),
        "after_s": None if end_s is None else max(end_s - ended_s, 0.0),
    }


def summary(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Per phase that is known of any run: {phase, text, runs, mean_s, most_s, share of the mean job}, in order."""
    rows = [row for row in rows if row["status"] == "ok"]
    found = []
    for phase in PHASES:
        known = [row[phase.name] for row in rows if row.get(phase.name) is not None]
        if known:
            mean_s = sum(known) / len(known)
            found.append(
                {"phase": phase.name, "text": phase.description, "runs": len(known), "mean_s": mean_s}
            )
            found[-1]["most_s"] = max(known)
    total_s = sum(entry["mean_s"] for entry in found)
    return [entry | {"share": entry["mean_s"] / total_s if total_s else None} for entry in found]


def as_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The summary for a terminal, one line per phase."""
    lines = [f"{'phase':<13} {'runs':>5} {'mean s':>8} {'most s':>8} {'share':>6}"]
    lines += [
        f"{entry['phase'].removesuffix('_s'):<13} {entry['runs']:>5} {entry['mean_s']:>8.2f} {entry['most_s']:>8.2f} "
        f"{entry['share'] or 0:>6.1%}"
        for entry in summary(rows)
    ]
    return "\n".join(lines)


# ---- Slurm's part


def record_all(run_files: Iterable[Path]) -> None:
    """Ask sacct for the jobs of finished runs and keep {job, submit_s, start_s, end_s} beside each run.json.

    Times are seconds since the epoch, `end_s` null where the job has not ended for accounting yet: it is asked again.
    """
    if not shutil.which("sacct"):
        return
    wanted: dict[str, list[tuple[Path, Row]]] = {}
    for path in run_files:
        try:
            record = read_json(path)
        except UserError:
            continue  # the integration says what is wrong with it
        job, known = _job_of(record), recorded(path.parent, record)
        if job and (known is None or known["end_s"] is None):
            wanted.setdefault(job, []).append((path.parent, record))
    times = query(wanted) if wanted else {}
    for job, runs in wanted.items():
        for folder, record in runs:
            if job in times and _is_of(record, times[job]):
                write_json(folder / FILE, {"job": job, **times[job]})


def recorded(run_dir: Path, record: Mapping[str, Any]) -> Row | None:
    """What is kept beside a run's record; None where there is none of this very job."""
    path = run_dir / FILE
    times = read_json(path) if path.exists() else None
    return times if times and times["job"] == _job_of(record) else None


def _job_of(record: Mapping[str, Any]) -> str | None:
    return ((record.get("environment") or {}).get("slurm") or {}).get("SLURM_JOB_ID")


def query(jobs: Iterable[str]) -> dict[str, Row]:
    """{job: {submit_s, start_s, end_s}} of the jobs that sacct knows; empty where it does not answer."""
    jobs, found = sorted(jobs), {}
    for i in range(0, len(jobs), JOBS_PER_QUERY):
        command = [
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--format=JobIDRaw,Submit,Start,End",
        ]
        command += [f"--jobs={','.join(jobs[i : i + JOBS_PER_QUERY])}"]
        environment = os.environ | {"SLURM_TIME_FORMAT": "%s"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        except (OSError, subprocess.TimeoutExpired):
            return found
        if done.returncode == 0:
            found |= parse(done.stdout)
    return found


def parse(text: str) -> dict[str, Row]:
    """Lines of sacct; a job that has not started is left out."""
    found = {}
    for line in filter(None, text.splitlines()):
        job, submit, start, end = line.split("|")
        if submit.isdigit() and start.isdigit():
            found[job] = {
                "submit_s": float(submit),
                "start_s": float(start),
                "end_s": float(end) if end.isdigit() else None,
            }
    return found


def _is_of(record: Mapping[str, Any], times: Mapping[str, Any]) -> bool:
    started_s = datetime.fromisoformat(record["started_utc"]).timestamp()
    ended = times["end_s"] is None or started_s <= times["end_s"] + TOLERANCE_S
    return times["start_s"] - TOLERANCE_S <= started_s and ended
