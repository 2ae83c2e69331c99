"""What the raw tables of the hardware check show: ticks, refresh, gain, cost, whether the counter is an integral."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from jouleline.errors import UserError
from jouleline.files import read_json, reading
from jouleline.hardware.tables import LATENCIES, LOADS, READINGS, STEPS, SUPPORT
from jouleline.schemas import Table

# The part of each refresh that an A100's instant power shows. A counter that sums it would see only this part.
PART_TIME_S = 0.025
# The first and last seconds of a load, in which the power and its 1 s average still change.
SETTLE_S = 1.5
# A beat is seen where the two kinds of counter would differ by this share of the power's swing.
TELLING = 0.2


@dataclass
class Tables:
    """The raw tables as columns: phase -> readings, and the other tables whole."""

    facts: dict[str, Any]
    support: dict[str, np.ndarray]
    latencies: dict[str, np.ndarray]
    readings: dict[str, dict[str, np.ndarray]]
    loads: dict[str, dict[str, Any]]
    steps: dict[str, np.ndarray]


def load(folder: Path) -> Tables:
    """Read the results of a check in `folder`. Raises UserError where a table is missing."""
    support, latencies, readings, steps = (_columns(folder, t) for t in (SUPPORT, LATENCIES, READINGS, STEPS))
    loads = _columns(folder, LOADS)
    rows = [dict(zip(loads, values)) for values in zip(*loads.values())]
    phases = {
        phase: {name: values[readings["phase"] == phase] for name, values in readings.items()}
        for phase in loads["phase"]
    }
    return Tables(
        read_json(folder / "facts.json"),
        support,
        latencies,
        phases,
        {row["phase"]: row for row in rows},
        steps,
    )


def _columns(folder: Path, table: Table) -> dict[str, np.ndarray]:
    path = folder / f"{table.name}.parquet"
    if not os.path.lexists(path):
        raise UserError(f"missing {path}: the check did not get that far; run it again")
    with reading(path, "a whole Parquet file", "run the check again"):
        read = pq.ParquetFile(path).read()
    return {name: read[name].to_numpy(zero_copy_only=False) for name in table.names}


def findings(tables: Tables) -> dict[str, Any]:
    """Every number of the report; None where unknown. Times in s, powers in W, shares as fractions."""
    constant = tables.readings["constant"]
    tick_s = update_period_s(constant, "energy_mj")
    return {
        "tick_s": tick_s,
        "refresh_instant_s": update_period_s(constant, "instant_mw"),
        "refresh_average_s": update_period_s(constant, "average_mw"),
        "powers": powers(tables),
        "counter_over_average": counter_over_average(tables),
        "latencies": latencies(tables.latencies),
        "waves": waves(tables, tick_s),
        "slowdown": slowdown(tables.steps),
    }


def update_period_s(readings: Mapping[str, np.ndarray], column: str) -> float | None:
    """Mean usual time between two changes of a reading. None where it hardly changes."""
    known = ~np.isnan(readings[column].astype(float))
    values, t_ns = readings[column][known], readings["t_ns"][known]
    apart = np.diff(t_ns[1:][np.diff(values) != 0]) * 1e-9
    if len(apart) < 3:
        return None
    usual = apart[(apart < 1.5 * np.median(apart)) & (apart > 0.5 * np.median(apart))]
    return float(usual.mean())


def settled(tables: Tables, phase: str) -> dict[str, np.ndarray]:
    """The readings of a load without its first and last SETTLE_S (a quarter at most)."""
    readings, row = tables.readings[phase], tables.loads[phase]
    cut_ns = min(SETTLE_S * 1e9, 0.25 * (row["end_ns"] - row["start_ns"]))
    kept = (readings["t_ns"] > row["start_ns"] + cut_ns) & (readings["t_ns"] < row["end_ns"] - cut_ns)
    return {name: values[kept] for name, values in readings.items()}


def mean_power_w(readings: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Mean power by the counter (from its first to its last move), the average and the instant power."""
    t_s, joule = moves(readings)
    counter = (joule[-1] - joule[0]) / (t_s[-1] - t_s[0]) if len(t_s) > 1 else None
    means = {"counter": counter}
    for name in ("average", "instant"):
        values = readings[f"{name}_mw"].astype(float)
        means[name] = float(np.nanmean(values)) * 1e-3 if np.isfinite(values).any() else None
    return means


def moves(readings: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Times (s) at which the counter was first seen at a new value, and that value (J)."""
    energy = readings["energy_mj"].astype(float)
    known = np.isfinite(energy)
    t_s, joule = readings["t_ns"][known] * 1e-9, energy[known] * 1e-3
    moved = np.flatnonzero(np.diff(joule) != 0) + 1
    return t_s[moved], joule[moved]


def powers(tables: Tables) -> dict[str, dict[str, float | None]]:
    """Mean power of each load, by each source."""
    return {phase: mean_power_w(settled(tables, phase)) for phase in tables.loads}


def counter_over_average(tables: Tables) -> dict[str, Any]:
    """The counter against the average power under the constant load: ratio - 1, and the compared seconds."""
    readings = settled(tables, "constant")
    means = mean_power_w(readings)
    seconds = float(np.ptp(readings["t_ns"])) * 1e-9 if len(readings["t_ns"]) else 0.0
    known = means["counter"] is not None and means["average"]
    return {"relative": means["counter"] / means["average"] - 1 if known else None, "seconds": seconds}


def latencies(table: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Median, 99th percentile and maximum of each call (us), idle and loaded."""
    rows = []
    for call in dict.fromkeys(table["call"]):
        for state in ("idle", "loaded"):
            values = table["call_us"][(table["call"] == call) & (table["state"] == state)]
            if len(values):
                middle, high = np.percentile(values, (50, 99))
                found = {"median_us": float(middle), "p99_us": float(high), "max_us": float(values.max())}
                rows.append({"call": call, "state": state, "n": len(values), **found})
    return rows


def waves(tables: Tables, tick_s: float | None) -> dict[str, Any]:
    """Square waves in step with the counter's ticks, and next to them.

    A counter that is a true integral shows the mean power of each whole tick. It shows hardly any swing where the
    period of the wave is about a tick. A counter that sums a part of each tick shows the full beat of the two periods.
    `swing` is the 5 to 95 % range of the power from tick to tick, over the range between the wave's two levels.
    `swing_true` and `swing_part` are what the two kinds would show. `true_integral` is None where no wave can decide.
    """
    low_w, high_w = levels(tables)
    rows = []
    for phase, row in tables.loads.items():
        if not phase.startswith("square_") or not tick_s or high_w - low_w <= 0:
            continue
        readings = settled(tables, phase)
        t_s, joule = moves(readings)
        if len(t_s) < 10:
            continue
        watts = np.diff(joule) / np.maximum(np.round(np.diff(t_s) / tick_s), 1) / tick_s
        duty = row["on_s"] / ((row["end_ns"] - row["start_ns"]) * 1e-9)
        rows.append(
            {
                "phase": phase,
                "period_s": row["period_s"],
                "duty": duty,
                "duty_w": low_w + duty * (high_w - low_w),
                **{f"{name}_w": value for name, value in mean_power_w(readings).items()},
                "swing": float(np.ptp(np.percentile(watts, (5, 95)))) / (high_w - low_w),
                "swing_true": _swing(row["period_s"], duty, tick_s, tick_s, len(watts)),
                "swing_part": _swing(row["period_s"], duty, tick_s, min(PART_TIME_S, tick_s), len(watts)),
            }
        )
    votes = [
        (row["swing"] - row["swing_true"]) / (row["swing_part"] - row["swing_true"])
        for row in rows
        if row["swing_part"] - row["swing_true"] > TELLING
    ]
    return {
        "low_w": low_w,
        "high_w": high_w,
        "rows": rows,
        "true_integral": max(votes) < 0.5 if votes else None,
    }


def levels(tables: Tables) -> tuple[float, float]:
    """The two powers (W) of the slow square wave: 10th and 90th percentile of its tick powers."""
    t_s, joule = moves(settled(tables, "slow_square"))
    if len(t_s) < 3:
        return float("nan"), float("nan")
    low, high = np.percentile(np.diff(joule) / np.diff(t_s), (10, 90))
    return float(low), float(high)


def _swing(period_s: float, duty: float, tick_s: float, window_s: float, ticks: int) -> float:
    """The 5 to 95 % range, over `ticks` ticks, that a counter shows of a square wave of 0 and 1 if it sums the last
    `window_s` of each tick. The phase of the wave is unknown, so this is the median over several phases."""

    def integral(t):
        whole = np.floor(t / period_s)
        return whole * duty * period_s + np.minimum(t - whole * period_s, duty * period_s)

    ranges = []
    for phase in np.linspace(0, period_s, 16, endpoint=False):
        ends = phase + tick_s * np.arange(1, ticks + 1)
        share = (integral(ends) - integral(ends - window_s)) / window_s
        ranges.append(np.ptp(np.percentile(share, (5, 95))))
    return float(np.median(ranges))


def slowdown(steps: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Median step time with the sidecar over that without it in the same block, minus 1: mean over blocks and 95 %
    limits (Student's t)."""
    from scipy.stats import t as student

    blocks = np.unique(steps["block"])
    usual = {
        (period, block): float(
            np.median(steps["step_s"][(steps["period_ms"] == period) & (steps["block"] == block)])
        )
        for period in np.unique(steps["period_ms"])
        for block in blocks
    }
    rows = []
    for period in sorted({period for period, _ in usual} - {0}, reverse=True):
        ratios = np.array([usual[period, block] / usual[0, block] - 1 for block in blocks])
        half = (
            student.ppf(0.975, len(ratios) - 1) * ratios.std(ddof=1) / np.sqrt(len(ratios))
            if len(ratios) > 1
            else np.nan
        )
        rows.append({"period_ms": int(period), "relative": float(ratios.mean()), "half95": float(half)})
    return rows
