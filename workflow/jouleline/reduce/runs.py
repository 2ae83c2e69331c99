"""Collect finished runs into the runs table: what was asked for, what was done, and what it cost."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json
from jouleline.measure.train.rules import drift_rel
from jouleline.model.table.runs import family_name
from jouleline.reduce import disturbances, timings
from jouleline.schemas.runs import RUNS, SCOPE_OF_SOURCE

WINDOW, EVALUATION = "window", "evaluation"
# Columns of a run that are worked out or measured. All others come from its row.
_ROW_COLUMNS = frozenset(RUNS.names) - {"campaign", "family", "device", "device_count", "data_parallel"}


def collect(
    grid: Mapping[str, Any],
    regions: Iterable[Mapping[str, Any]],
    runs_dir: Path,
    accounting: Mapping[str, Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the runs table and of the timings table: one each per tried run of `grid`, in the grid's order.

    `grid` is grid.json. `regions` are the rows of the regions table. `runs_dir` has a folder per run. `accounting` is
    {run_id: Slurm's answer}. A run without a record was never tried and is left out. A failed run has status `failed`
    and null numbers. Raises UserError for a record whose row is not the grid's.
    """
    totals = {
        (row["run_id"], row["region"]): row
        for row in regions
        if row["region"] in (WINDOW, EVALUATION) and row["device_uuid"] is None
    }
    rows, times = [], []
    for entry in grid["runs"]:
        record = read_record(runs_dir / entry["run_id"])
        if record is not None:
            _require_same_row(entry, record)
            run_id = entry["run_id"]
            slurm = accounting.get(run_id)
            rows.append(run_row(grid["campaign"], entry, record, totals.get((run_id, WINDOW)), slurm))
            evaluation = totals.get((run_id, EVALUATION)) or {}
            times.append(timings.row(record, evaluation.get("time_s"), slurm))
    add_noise_floor(rows)
    return rows, times


def add_noise_floor(rows: Iterable[dict[str, Any]]) -> None:
    """Fill in, for each row of the runs table, how much the replicates of its configuration differ."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        # The part that replicates have in common: the run id without its replicate.
        groups[row["run_id"].rsplit("-r", 1)[0]].append(row)
    for group in groups.values():
        known = [row for row in group if row["status"] == "ok" and row.get("energy_j") is not None]
        spread = {
            "replicates": len(known),
            "energy_cv": _cv([row["energy_j"] / row["tokens"] for row in known]),
            "time_cv": _cv([row["time_s"] / row["steps"] for row in known]),
        }
        for row in group:
            row |= spread


def _cv(values: list[float]) -> float | None:
    """Sample standard deviation over mean; None for fewer than two values."""
    return stdev(values) / fmean(values) if len(values) > 1 else None


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """run.json of a run; run.failed.json where it failed; None where it was not tried."""
    for name in ("run.json", "run.failed.json"):
        if (run_dir / name).exists():
            return read_json(run_dir / name)
    return None


def _require_same_row(entry: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    # An older record may lack a column of the grid. It was then measured at that column's default.
    measured = record.get("row") or {}
    differs = [
        name for name, value in measured.items() if name in entry["row"] and entry["row"][name] != value
    ]
    if differs or not measured:
        raise UserError(
            f"run {entry['run_id']} was measured with another row than the grid's (differs in "
            f"{', '.join(differs) or 'everything'}); measure it again: --forcerun PATH of its run.json"
        )


def run_row(
    campaign: str,
    entry: Mapping[str, Any],
    record: Mapping[str, Any],
    window: Mapping[str, Any] | None,
    slurm: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The runs-table row of one run. `window` is the regions-table total of its measured window, if any.

    `slurm` is accounting's answer about its job, if any.
    """
    row = dict(entry["row"])
    training = record.get("training") or {}
    environment = record.get("environment") or {}
    devices = row["nodes"] * row["gpus_per_node"]
    result = {name: row[name] for name in _ROW_COLUMNS if name in row}
    result |= {
        "run_id": entry["run_id"],
        "campaign": campaign,
        "host": environment.get("host"),
        "device": environment.get("device"),
        "device_count": devices,
        "data_parallel": devices // row["tensor_parallel"],
        "num_labels": training.get("num_labels") or row["num_labels"],
        "slurm_job_id": (environment.get("slurm") or {}).get("SLURM_JOB_ID"),
        "slurm_energy_j": (slurm or {}).get("energy_j"),
        "status": record["status"],
    }
    names = ("steps", "samples", "tokens", "time_s", "loss_first", "loss_last", "accuracy")
    result |= {name: finite(training.get(name)) for name in names}
    result |= _energy(window) | _start(record) | disturbances.columns(record)
    result["family"] = family_name(result)
    return result | _judgement(record, window)


def _start(record: Mapping[str, Any]) -> dict[str, Any]:
    """The state in which the measured window began."""
    times_s = (record.get("training") or {}).get("warmup_step_times_s")
    temperatures = [(node.get("cooldown") or {}).get("temperature_c") for node in record.get("nodes") or []]
    known = [value for value in temperatures if value is not None]
    return {
        "warmup_drift_rel": drift_rel(times_s, record["protocol"]) if times_s else None,
        "start_temperature_c": max(known, default=None),
    }


def _energy(window: Mapping[str, Any] | None) -> dict[str, Any]:
    if window is None:
        return {}
    parts = [window["energy_edge_u_j"], window["energy_gap_u_j"]]
    known = [part for part in parts if part is not None]
    return {
        "energy_j": window["energy_j"],
        "energy_source": window["energy_source"],
        "energy_scope": SCOPE_OF_SOURCE.get(window["energy_source"]),
        "energy_edge_u_j": math.hypot(*known) if known else None,
        "energy_gain_u_j": window["energy_gain_u_j"],
        "idle_power_w": window["idle_power_w"],
        "host_energy_j": window["host_energy_j"],
        "mean_power_w": window["mean_power_w"],
    }


def _judgement(record: Mapping[str, Any], window: Mapping[str, Any] | None) -> dict[str, str]:
    """Verdict and reasons. A run that is not ok, or has no window, is invalid."""
    reasons = [record["reason"]] if record.get("reason") else []
    if record["status"] != "ok":
        return {"verdict": "invalid", "reasons": ",".join(reasons or [record["status"]])}
    if window is None:
        return {"verdict": "invalid", "reasons": ",".join([*reasons, "no_measured_window"])}
    reasons += [reason for reason in (window["reasons"] or "").split(",") if reason]
    verdict = window["verdict"]
    if disturbances.others_interfered(record, disturbances.columns(record)["foreign_cores"]):
        reasons.append(disturbances.FOREIGN_LOAD)
        verdict = "degraded" if verdict == "valid" else verdict
    return {"verdict": verdict, "reasons": ",".join(reasons)}


def finite(value: Any) -> Any:
    """A number as it is. NaN and infinities are no numbers to report, so they become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
