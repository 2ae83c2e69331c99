"""Where the time of each measured job went: queue, time before the agent, and every phase until the job's end.

Agent and ranks keep their own clocks in run.json. The marks give the evaluation. Slurm's accounting gives queue, start
and end in whole seconds (jouleline.slurm.accounting). A time that no clock measured is null, never 0.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from jouleline.schemas.timings import PHASES

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
    """The timings-table row of one run, from its record, its evaluation time by the marks, and Slurm's answer."""
    training = record.get("training") or {}
    clocks = training.get("startup_s") or {}
    phases = {name: _sum(clocks.get(part) for part in parts) for name, parts in _STARTUP.items()}
    phases["warmup_s"] = _sum(training.get("warmup_step_times_s") or [])
    phases |= {"window_s": training.get("time_s"), "evaluation_s": evaluation_s}
    wall_s = record.get("wall_s")
    # The rest has a meaning only where all phases are known. The interpreter starts before the agent's clock.
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
    """For each phase known of any run: {phase, text, runs, mean_s, most_s, share of the mean job}, in order."""
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
