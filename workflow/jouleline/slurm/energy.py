"""What Slurm itself counted for a run: ConsumedEnergyRaw of the training step, as a cross-check.

Sites that gather energy (AcctGatherEnergyType: RAPL, IPMI, Cray's pm_counters, GPUs) report it per step, in joules, for
whole nodes. Only the step counts: overlapping steps of a job are counted twice in the job's figure, and the batch step
not at all. Elsewhere the figure is absent: null, never 0.

The figure is asked for once and kept beside run.json, since accounting forgets.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json, write_json

FILE = "slurm_energy.json"
FIELDS = ("JobID", "Start", "End", "ConsumedEnergyRaw")
JOBS_PER_QUERY = 500
QUERY_TIMEOUT_S = 120
# A run starts some seconds after its step; job ids are used again when a controller loses its state.
TOLERANCE_S = 60
# Slurm's marks for "not known" in a 64-bit field.
UNKNOWN = {0, 2**64 - 1, 2**64 - 2}


def step_of(record: Mapping[str, Any]) -> str | None:
    """`<job>.<step>` of the training step of a run, from its record; None for a run without Slurm."""
    slurm = (record.get("environment") or {}).get("slurm") or {}
    job, step = slurm.get("SLURM_JOB_ID"), slurm.get("SLURM_STEP_ID")
    return f"{job}.{step}" if job and step else None


def record_all(run_files: Iterable[Path]) -> int:
    """Ask sacct for the steps of finished runs and keep each figure beside its run.json; how many were found.

    Runs without Slurm, or with a figure already, are not asked for. Without sacct, or where accounting does not
    answer in time, nothing is kept: the figure is a cross-check, and nothing fails for want of it.
    """
    if not shutil.which("sacct"):
        return 0
    wanted: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in run_files:
        try:
            record = read_json(path)
        except UserError:
            # The integration has a row for a run that cannot be read; here it has nothing to be asked.
            continue
        step = step_of(record)
        if step and recorded(path.parent, record) is None:
            wanted.setdefault(step, []).append((path.parent, record))
    figures = query(wanted) if wanted else {}
    found = 0
    for step, runs in wanted.items():
        for folder, record in runs:
            figure = figures.get(step)
            if figure and _is_of(record, figure):
                write_json(folder / FILE, {"step": step, "energy_j": figure["energy_j"]})
                found += 1
    return found


def recorded(run_dir: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figure kept beside a run's record, {step, energy_j in joules}; None if there is none of this very step."""
    try:
        figure = read_json(run_dir / FILE)
    except UserError:
        return None
    return figure if figure["step"] == step_of(record) else None


def query(steps: Iterable[str]) -> dict[str, dict[str, float]]:
    """{step: {energy_j, start_s, end_s}} of the steps that sacct has an energy of; empty where it does not answer."""
    jobs = sorted({step.split(".")[0] for step in steps})
    figures: dict[str, dict[str, float]] = {}
    for i in range(0, len(jobs), JOBS_PER_QUERY):
        command = ["sacct", "--noheader", "--parsable2", f"--format={','.join(FIELDS)}"]
        command += [f"--jobs={','.join(jobs[i : i + JOBS_PER_QUERY])}"]
        environment = os.environ | {"SLURM_TIME_FORMAT": "%s"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, env=environment
            )
        except (OSError, subprocess.TimeoutExpired):
            return figures
        if done.returncode == 0:
            figures |= parse(done.stdout)
    return figures


def parse(text: str) -> dict[str, dict[str, float]]:
    """Lines of `sacct --parsable2` with FIELDS; steps without a known energy or without an end are left out."""
    found = re.findall(r"^(\d+\.\d+)\|(\d+)\|(\d+)\|(\d+)$", text, re.M)
    return {
        step: {"energy_j": float(energy), "start_s": float(start), "end_s": float(end)}
        for step, start, end, energy in found
        if int(energy) not in UNKNOWN
    }


def _is_of(record: Mapping[str, Any], figure: Mapping[str, float]) -> bool:
    started_s = datetime.fromisoformat(record["started_utc"]).timestamp()
    return figure["start_s"] - TOLERANCE_S <= started_s <= figure["end_s"] + TOLERANCE_S
