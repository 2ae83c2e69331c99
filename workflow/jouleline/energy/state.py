"""State of a device in a region: temperature, clocks, throttling, limits, foreign processes, failed calls."""

from typing import Any

import numpy as np

from jouleline.energy import verdict as v
from jouleline.energy.load import Node, Series

_THERMAL = ("throttle_sw_thermal_ns", "throttle_hw_thermal_ns", "throttle_power_brake_ns")
# Optional readings that a device may simply not have; their absence is in the capabilities, not a failed
# call.


def add_state(node: Node, series: Series, row: dict[str, Any]) -> None:
    """Fill the state columns of a device row and add to its reasons. Only GPUs have a state."""
    if series.info["kind"] != "gpu":
        return
    slow = series.slow
    start, end = row["start_us"], row["end_us"]
    inside = _around(slow["t_us"], start, end)
    temperature = _known(slow["temperature_c"][inside])
    clock = _known(slow["sm_clock_mhz"][inside])
    if len(temperature):
        row["temperature_start_c"], row["temperature_end_c"] = float(temperature[0]), float(temperature[-1])
        row["temperature_max_c"] = float(temperature.max())
        if abs(temperature[-1] - temperature[0]) > v.THERMAL_DRIFT_C:
            row["reasons"].add("thermal_drift")
    if len(clock):
        row["sm_clock_mhz"] = float(clock.mean())
    row["throttle_power_fraction"] = _share(slow, ("throttle_power_ns",), start, end)
    thermal = row["throttle_thermal_fraction"] = _share(slow, _THERMAL, start, end)
    if thermal is not None and thermal > v.THROTTLED_SHARE:
        row["reasons"].add("throttled")
    if not len(temperature) or not len(clock) or thermal is None:
        row["reasons"].add("unchecked_state")
    limits = _known(slow["power_limit_mw"][inside])
    if len(limits) and limits.max() != limits.min():
        row["reasons"].add("limits_changed")
    # Processes are read more seldom than the rest: the last reading before the region still counts.
    foreign = _known(slow["foreign_processes"][: inside.stop])
    recent = foreign[-1 - int(np.isfinite(slow["foreign_processes"][inside]).sum()) :]
    if len(recent) and recent.max() > 0:
        row["reasons"].add("foreign_process")
    elif not len(recent):
        row["reasons"].add("unchecked_processes")
    if series.info.get("power_scope") == "module":
        row["reasons"].add("module_scope")
    fast = series.fast
    calls = np.concatenate([lane["call_us"][_between(lane["t_us"], start, end)] for lane in (fast, slow)])
    if len(calls) and calls.max() > v.SLOW_CALL_S * 1e6:
        row["reasons"].add("slow_calls")


def _between(t_us: np.ndarray, start: float, end: float) -> slice:
    return slice(int(np.searchsorted(t_us, start, "left")), int(np.searchsorted(t_us, end, "right")))


def _around(t_us: np.ndarray, start: float, end: float) -> slice:
    """Rows inside, and the last one before and the first one after: the state is read only once a second."""
    inside = _between(t_us, start, end)
    return slice(max(inside.start - 1, 0), inside.stop + 1)


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _share(slow: dict[str, np.ndarray], columns: tuple[str, ...], start: float, end: float) -> float | None:
    """Share of the region in which the time counters of `columns` ran (the one that ran most); None:
    unknown."""
    shares = []
    for column in columns:
        good = np.isfinite(slow[column])
        if good.sum() < 2 or end <= start:
            continue
        first, last = np.interp([start, end], slow["t_us"][good], slow[column][good])
        shares.append(max(last - first, 0.0) / ((end - start) * 1e3))
    return min(max(shares), 1.0) if shares else None


def idle_power(node: Node, view) -> float | None:
    """Mean power (W) in the idle stretches that the sidecar logged: before the run, else after it."""
    found: dict[str, float] = {}
    curve = view.curve_for(0.0)
    for event in node.events:
        if event.get("kind") != "idle" or curve is None:
            continue
        # A stretch begins and ends inside the first and last tick: keep to the knots that there are.
        start = max(event["start_us"], curve.t_us[0])
        end = min(event["end_us"], curve.t_us[-1])
        if end - start < 0.25e6:
            continue
        energy = float(curve.at(np.array([end]))[0] - curve.at(np.array([start]))[0])
        found[event.get("phase")] = energy / ((end - start) * 1e-6)
    power = found.get("before", found.get("after"))
    return None if power is None else float(power)


# A stuck call is logged up to a second after it began.
STUCK_BEFORE_US = 1e6

# Events of the whole node that are codes by themselves; those with a device concern only that one.
_ANY_TIME = ("samples_unreadable", "markers_broken", "disk_failed", "wrong_pairing")
_FROM_THEN_ON = ("samples_thinned", "period_doubled", "clock_step")


def event_reasons(node: Node, device: int, start_us: float, end_us: float) -> set[str]:
    """Codes from the node's event log that concern a device in a stretch of time."""
    found, failing = set(), {}
    for event in node.events:
        kind, t_us = event.get("kind"), event.get("t_us", start_us)
        if event.get("device", device) != device or device not in event.get("devices", [device]):
            continue
        if kind in _ANY_TIME or (kind in _FROM_THEN_ON and t_us <= end_us):
            found.add(kind)
        elif kind == "not_compacted":
            found.add("disk_failed")
        elif kind == "call_stuck" and start_us - STUCK_BEFORE_US <= t_us <= end_us + STUCK_BEFORE_US:
            found.add("slow_calls")
        elif kind == "call_failed" and t_us <= end_us:
            failing[event["call"]] = t_us
        elif kind == "call_recovered" and t_us < start_us:
            failing.pop(event["call"], None)
    if failing:
        found.add("call_failed")
    if not any(event.get("kind") == "ended" for event in node.events):
        found.add("sidecar_died")
    return found
