"""Rows of the regions table for one device: energy, uncertainty, what was read, and the reasons found."""

from typing import Any

import numpy as np

from jouleline.energy import verdict as v
from jouleline.energy.curve import (
    US,
    Curve,
    average_curve,
    average_readings,
    counter_curve,
    instant_curve,
    power_readings,
)
from jouleline.energy.load import Node, Series
from jouleline.energy.state import STATE_LANE
from jouleline.energy.windows import Windows
from jouleline.schemas.runs import POWER_BOUNDS_W

# NVIDIA states +-5 % for the power sensor. As the standard uncertainty of a uniform spread: 0.05 / sqrt(3).
NVML_GAIN_U = 0.05 / np.sqrt(3)
AVERAGE_FROM_S = 10.0
GAP_PERIODS, GAP_S = 10.0, 0.5
# The 1 s average is read once a second. After a longer pause it does not show what is more than a second back. The
# counter is checked against it only where it was read for at least this share of the region.
SLOW_GAP_US = 2.5e6
CHECKED_SHARE = 0.5
# Up to so far from an edge, the 1 s average, read once a second, says how much it may lag there.
EDGE_LAG_S = 2.5

_SOURCES = {"rapl": "rapl", "estimate": "estimate"}


class DeviceView:
    """One device with its curves. The curves are made once for all its regions."""

    def __init__(self, node: Node, series: Series):
        self.node, self.series, self.info = node, series, series.info
        self.counter = counter_curve(series)
        self.average = average_curve(series)
        self.instant = instant_curve(series)
        fast = series.fast
        good = (fast["status"] == 0) & (np.isfinite(fast["energy_mj"]) | np.isfinite(fast["power_mw"]))
        self.read_us = fast["t_us"][good]
        self.period_us = float((node.meta or {}).get("period_ms") or 20.0) * 1e3
        self.doubled = [
            (event["t_us"], event["period_ms"] * 1e3)
            for event in node.events
            if event.get("kind") == "period_doubled"
            and event["lane"] != STATE_LANE
            and self.info["index"] in event["devices"]
        ]

    def gap_us(self, end_us: np.ndarray | float) -> np.ndarray:
        """The longest time between two readings (us) that is no gap, for regions that end then. It follows from the
        slowest period at which the device was read before."""
        slowest_us = np.full(np.shape(end_us), self.period_us)
        for t_us, period_us in self.doubled:
            slowest_us = np.where(t_us < end_us, np.maximum(slowest_us, period_us), slowest_us)
        return np.maximum(GAP_PERIODS * slowest_us, GAP_S / US)

    def curve_for(self, time_s: float) -> Curve | None:
        """The best available curve for a region of this length."""
        if self.counter is not None:
            return self.counter
        if self.average is not None and (time_s >= AVERAGE_FROM_S or self.instant is None):
            return self.average
        return self.instant

    def last_us(self) -> float:
        """The time until which energy is known (us); nan where it is never known."""
        curve = self.curve_for(np.inf)
        return float(curve.t_us[-1]) if curve is not None else np.nan

    def source(self, curve: Curve | None) -> str | None:
        if curve is None:
            return None
        kind = _SOURCES.get(self.info["kind"])
        return kind or ("nvml_counter" if curve is self.counter else "nvml_power")


def device_rows(view: DeviceView, windows: Windows, idle_w: float | None) -> list[dict[str, Any]]:
    """One row per region of the device, without run_id, verdict and the text of the reasons. `reasons` is a set."""
    rows = []
    start = windows.start_us
    end = np.where(np.isfinite(windows.end_us), windows.end_us, view.last_us())
    columns = _vectors(view, start, end)
    for index in range(len(start)):
        row = {name: _plain(values[index]) for name, values in columns.items()}
        row |= {
            "region": windows.name[index],
            "ordinal": int(windows.ordinal[index]),
            "parent": windows.parent[index],
            "steps": int(windows.steps[index]),
            "idle_power_w": idle_w,
        }
        row["start_us"], row["end_us"] = float(start[index]), float(end[index])
        row["reasons"] = _reasons(view, row, truncated=not np.isfinite(windows.end_us[index]))
        rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """A Python scalar. nan becomes None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _vectors(view: DeviceView, start: np.ndarray, end: np.ndarray) -> dict[str, np.ndarray]:
    """What is worked out for all regions at once: one array per column."""
    time_s = (end - start) * US
    count = len(start)
    chosen = [view.curve_for(seconds) for seconds in time_s]
    columns: dict[str, Any] = {
        "time_s": time_s,
        "energy_j": np.full(count, np.nan),
        "energy_edge_u_j": np.full(count, np.nan),
        "energy_gap_u_j": np.full(count, np.nan),
        "n_ticks": np.full(count, np.nan),
        "method": [curve.method if curve else None for curve in chosen],
        "energy_source": [view.source(curve) for curve in chosen],
    }
    for curve in {id(c): c for c in chosen if c is not None}.values():
        mine = np.array([c is curve for c in chosen])
        s, e = start[mine], end[mine]
        columns["energy_j"][mine] = curve.at(e) - curve.at(s)
        columns["energy_edge_u_j"][mine] = np.hypot(curve.edge_u(s), curve.edge_u(e))
        columns["energy_gap_u_j"][mine] = _gap_u(view, curve, s, e)
        if curve.method == "tick":
            ticks = np.searchsorted(curve.t_us, e, "right") - np.searchsorted(curve.t_us, s, "left")
            columns["n_ticks"][mine] = ticks
    columns["n_ticks"] = [None if np.isnan(n) else int(n) for n in columns["n_ticks"]]
    energy = columns["energy_j"]
    gain = NVML_GAIN_U if view.info["kind"] == "gpu" else np.nan
    columns["energy_gain_u_j"] = gain * energy
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["mean_power_w"] = energy / time_s
    tick_s = view.counter.tick_s if view.counter is not None else np.nan
    columns["tick_period_s"] = np.full(count, tick_s)
    for name, curve in (("instant_energy_j", view.instant), ("average_energy_j", view.average)):
        columns[name] = curve.at(end) - curve.at(start) if curve is not None else np.full(count, np.nan)
    return columns | _coverage(view, start, end)


def _gap_u(view: DeviceView, curve: Curve, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Uncertainty from bridged faults, each in the share of it that is in the region. Power curves bridge gaps by a
    straight line: half of the energy in them is uncertain."""
    u2 = np.zeros(len(start))
    for defect in curve.defects:
        overlap = np.minimum(end, defect.end_us) - np.maximum(start, defect.start_us)
        share = np.clip(overlap / max(defect.end_us - defect.start_us, 1.0), 0, 1)
        u2 += (defect.u_j * np.sqrt(share)) ** 2
    if curve.method.endswith("power"):
        limit_us = np.maximum(view.gap_us(end), SLOW_GAP_US * (curve.method == "average_power"))
        steps = np.diff(curve.t_us)
        for gap in np.flatnonzero(steps > limit_us.min(initial=np.inf)):
            inside = np.clip([start, end], curve.t_us[gap], curve.t_us[gap + 1])
            bridged_j = 0.5 * (curve.at(inside[1]) - curve.at(inside[0]))
            u2 += bridged_j**2 * (steps[gap] > limit_us)
    return np.sqrt(u2)


def _coverage(view: DeviceView, start: np.ndarray, end: np.ndarray) -> dict[str, np.ndarray]:
    """Number of readings inside, longest gap between readings cut to the region, share outside gaps above the limit."""
    read = view.read_us
    count = len(start)
    if len(read) == 0:
        return {
            "n_samples": np.zeros(count, int),
            "longest_gap_s": (end - start) * US,
            "covered_fraction": np.zeros(count),
        }
    first, last = np.searchsorted(read, start, "left"), np.searchsorted(read, end, "right")
    edges = np.concatenate(([-np.inf], read, [np.inf]))
    longest, missing = np.zeros(count), np.zeros(count)
    steps, limit_us = np.diff(edges), view.gap_us(end)
    for index in np.flatnonzero(steps > limit_us.min(initial=np.inf)):
        cut = np.minimum(end, edges[index + 1]) - np.maximum(start, edges[index])
        missing += np.maximum(cut, 0) * (steps[index] > limit_us)
    for index in range(count):
        inner = steps[first[index] + 1 : last[index]]
        ends = (
            min(edges[first[index] + 1], end[index]) - start[index],
            end[index] - max(edges[last[index]], start[index]),
        )
        longest[index] = max(*ends, inner.max() if len(inner) else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        covered = np.where(end > start, 1 - missing / (end - start), np.nan)
    return {"n_samples": last - first, "longest_gap_s": longest * US, "covered_fraction": covered}


def _reasons(view: DeviceView, row: dict[str, Any], truncated: bool) -> set[str]:
    """Reason codes that follow from the energy reading itself."""
    found = {"truncated"} if truncated else set()
    if not row["time_s"] or row["time_s"] <= 0:
        return found | {"zero_length"}
    if row["energy_j"] is None:
        return found | _why_unknown(view, row)
    if view.info["kind"] == "rapl" and row["energy_j"] <= 0 and row["time_s"] > v.COUNTING_S:
        return found | {"not_counting"}
    if _is_impossible(view, row):
        return found | {"impossible_power"}
    uncertain = np.hypot(row["energy_edge_u_j"] or 0.0, row["energy_gap_u_j"] or 0.0)
    share = uncertain / row["energy_j"] if row["energy_j"] > 0 else np.inf if uncertain > 0 else 0.0
    if share > v.EDGE_INVALID:
        found.add("edge_too_uncertain")
    elif share > v.EDGE_DEGRADED:
        found.add("edge_uncertain")
    if row["method"] == "tick" and row["n_ticks"] < v.FEWEST_TICKS:
        found.add("too_few_ticks")
    if row["longest_gap_s"] / US > view.gap_us(row["end_us"]):
        found.add("gap")
    curve = view.curve_for(row["time_s"])
    for defect in curve.defects:
        if defect.code and defect.start_us < row["end_us"] and defect.end_us > row["start_us"]:
            found.add(defect.code)
    return found | _cross_checks(view, row)


def _is_impossible(view: DeviceView, row: dict[str, Any]) -> bool:
    """Whether a GPU's mean power is none that a GPU has: virtual ones report 0 W, or the largest number there is."""
    low, high = POWER_BOUNDS_W
    power_w = row["energy_j"] / row["time_s"]
    return view.info["kind"] == "gpu" and (power_w > high or (power_w < low and row["time_s"] > v.COUNTING_S))


def _average_slack_j(view: DeviceView, edges_us: np.ndarray) -> float:
    """How wrong the integral of the average power may be at its edges (J): it lags by a second, and the power may swing
    inside the second of the edge."""
    slack_j = 0.0
    for (t_us, power_w), seconds in (
        (average_readings(view.series), 1.0),
        (power_readings(view.series), 0.25),
    ):
        for edge_us in edges_us:
            near = power_w[np.abs(t_us - edge_us) < EDGE_LAG_S / US]
            slack_j += seconds * float(np.ptp(near)) if len(near) else np.inf
    return slack_j


def _why_unknown(view: DeviceView, row: dict[str, Any]) -> set[str]:
    read = view.read_us
    if len(read) == 0:
        return {"device_missing"}
    meta = view.node.meta or {}
    lost = meta.get("end_us") and read[-1] < min(row["end_us"], meta["end_us"]) - view.gap_us(row["end_us"])
    return {"edges_unbracketed", "device_lost"} if lost else {"edges_unbracketed"}


def _cross_checks(view: DeviceView, row: dict[str, Any]) -> set[str]:
    """Compare the counter with the average power, and the instant power with the counter."""
    if view.info["kind"] != "gpu":
        return set()
    found = set()
    if row["method"] != "tick":
        average, instant = row["average_energy_j"], row["instant_energy_j"]
        found.add("no_counter")
        if row["method"] == "instant_power" and average and abs(instant / average - 1) > v.ALIAS_SHARE:
            found.add("alias_error")
        return found
    return found | (_against_average(view, row) if row["time_s"] >= AVERAGE_FROM_S else set())


def _against_average(view: DeviceView, row: dict[str, Any]) -> set[str]:
    """Compare the counter with the average power, between its readings inside the region."""
    t_us = view.average.t_us if view.average is not None else np.array([])
    t_us = t_us[(t_us >= row["start_us"]) & (t_us <= row["end_us"])]
    step_us = np.diff(t_us)
    read = step_us <= SLOW_GAP_US
    if step_us[read].sum() * US < CHECKED_SHARE * row["time_s"]:
        return {"unchecked_average"}
    energy_j, average_j = (np.diff(curve.at(t_us))[read].sum() for curve in (view.counter, view.average))
    off_j = abs(energy_j - average_j)
    if row["time_s"] < v.COUNTER_WINDOW_S:
        off_j = max(off_j - _average_slack_j(view, t_us[[0, -1]]), 0.0)
    off = off_j / average_j if average_j > 0 else np.inf
    if off > v.COUNTER_INVALID:
        return {"counter_contradicted"}
    return {"counter_mismatch"} if off > v.COUNTER_DEGRADED else set()
