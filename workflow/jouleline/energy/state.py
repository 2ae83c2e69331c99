"""State of a device in a region: temperature, clocks, throttling, limits, foreign processes, failed calls."""

from typing import Any

import numpy as np

from jouleline.energy import verdict as v
from jouleline.energy.load import Node, Series

_THERMAL = ("throttle_sw_thermal_ns", "throttle_hw_thermal_ns", "throttle_power_brake_ns")
# A reading of the state counts for an edge up to this far from the region. Processes are read more rarely.
NEAR_US, NEAR_PROCESSES_US = 2.5e6, 10e6
# The lane that reads the state. Every other lane reads the energy.
STATE_LANE = "state"
# A reading of the state is so many calls, timed together.
STATE_CALLS = 9


def add_state(series: Series, row: dict[str, Any]) -> None:
    """Fill in the state columns of a device row and add to its reasons. Only GPUs have a state."""
    if series.info["kind"] != "gpu":
        return
    slow, reasons = series.slow, row["reasons"]
    start, end = row["start_us"], row["end_us"]
    temperature, temperature_known = _near(slow, "temperature_c", start, end)
    clock, clock_known = _near(slow, "sm_clock_mhz", start, end)
    if temperature_known:
        row["temperature_start_c"], row["temperature_end_c"] = float(temperature[0]), float(temperature[-1])
        row["temperature_max_c"] = float(temperature.max())
    if len(temperature) and abs(temperature[-1] - temperature[0]) > v.THERMAL_DRIFT_C:
        reasons.add("thermal_drift")
    if clock_known:
        row["sm_clock_mhz"] = float(clock.mean())
    row["throttle_power_fraction"] = _share(slow, ("throttle_power_ns",), start, end)
    thermal = row["throttle_thermal_fraction"] = _share(slow, _THERMAL, start, end)
    if thermal is not None and thermal > v.THROTTLED_SHARE:
        reasons.add("throttled")
    if not temperature_known or not clock_known or thermal is None:
        reasons.add("unchecked_state")
    limits, _ = _near(slow, "power_limit_mw", start, end)
    if len(limits) and limits.max() != limits.min():
        reasons.add("limits_changed")
    foreign, foreign_known = _near(slow, "foreign_processes", start, end, NEAR_PROCESSES_US)
    if foreign.any():
        reasons.add("foreign_process")
    elif not foreign_known:
        reasons.add("unchecked_processes")
    if series.info.get("power_scope") == "module":
        reasons.add("module_scope")
    lanes = ((series.fast, 1), (slow, STATE_CALLS))
    if any(_longest_call_us(lane, start, end) > calls * v.SLOW_CALL_S * 1e6 for lane, calls in lanes):
        reasons.add("slow_calls")


def _near(
    slow: dict[str, np.ndarray], column: str, start: float, end: float, near_us: float = NEAR_US
) -> tuple[np.ndarray, bool]:
    """Known values of a column inside the region with the last one before and the first one after, and whether it was
    known at both edges. Older readings do not count, because the lane may have hung since."""
    good = np.isfinite(slow[column])
    t_us, values = slow["t_us"][good], slow[column][good]
    first, last = np.searchsorted(t_us, [start, end])
    first, last = max(first - 1, np.searchsorted(t_us, start - near_us)), last + 1
    last = min(last, np.searchsorted(t_us, end + near_us, "right"))
    t_us, values = t_us[first:last], values[first:last]
    known = len(t_us) > 0 and t_us[0] <= start + near_us and t_us[-1] >= end - near_us
    return values, bool(known)


def _longest_call_us(lane: dict[str, np.ndarray], start: float, end: float) -> float:
    """The longest of the calls that are in the region or reach into it. Of the calls before it only the last can."""
    first, last = np.searchsorted(lane["t_us"], start), np.searchsorted(lane["t_us"], end, "right")
    called = slice(max(first - 1, 0), last)
    call_us = lane["call_us"][called]
    return float(np.max(call_us[lane["t_us"][called] + call_us >= start], initial=0.0))


def _share(slow: dict[str, np.ndarray], columns: tuple[str, ...], start: float, end: float) -> float | None:
    """Share of the region in which the time counters of `columns` ran (the one that ran most), as far as the region
    lies between readings. None: unknown."""
    shares = []
    for column in columns:
        good = np.isfinite(slow[column])
        t_us = slow["t_us"][good]
        if len(t_us) < 2 or not _near(slow, column, start, end)[1]:
            continue
        seen = np.clip([start, end], t_us[0], t_us[-1])
        if seen[1] > seen[0]:
            first, last = np.interp(seen, t_us, slow[column][good])
            shares.append(max(last - first, 0.0) / ((seen[1] - seen[0]) * 1e3))
    return float(min(max(shares), 1.0)) if shares else None


def idle_power(node: Node, view) -> float | None:
    """Mean power (W) in the idle stretch that the sidecar logged before the run, else in the one after it."""
    found: dict[str, float] = {}
    curve = view.curve_for(0.0)
    for event in node.events:
        if event.get("kind") != "idle" or curve is None:
            continue
        # A stretch begins and ends inside the first and last tick, so only the knots inside it are used.
        start = max(event["start_us"], curve.t_us[0])
        end = min(event["end_us"], curve.t_us[-1])
        if end - start < 0.25e6:
            continue
        energy = float(curve.at(np.array([end]))[0] - curve.at(np.array([start]))[0])
        found[event.get("phase")] = energy / ((end - start) * 1e-6)
    power = found.get("before", found.get("after"))
    return None if power is None else float(power)


# Events of the whole node that are codes themselves. An event with a device concerns only that device.
_ANY_TIME = (
    *("samples_unreadable", "markers_broken", "rank_twice", "disk_failed", "wrong_pairing", "zone_left_out"),
)
_FROM_THEN_ON = ("samples_thinned", "period_doubled", "clock_step")


def event_reasons(node: Node, series: Series, start_us: float, end_us: float) -> set[str]:
    """Codes from the node's event log about a device in a stretch of time."""
    found, failing, device = set(), {}, series.info["index"]
    for event in node.events:
        kind, t_us = event.get("kind"), event.get("t_us", start_us)
        if event.get("device", device) != device or device not in event.get("devices", [device]):
            continue
        if kind in _ANY_TIME or (kind in _FROM_THEN_ON and t_us <= end_us):
            found.add(kind)
        elif kind == "foreign_load":
            if event["start_us"] < end_us and event["end_us"] > start_us:
                # Only RAPL counts the energy of other processes.
                found.add(kind if series.info["kind"] == "rapl" else "foreign_cpus")
        elif kind == "not_compacted":
            found.add("disk_failed")
        elif kind == "call_stuck" and t_us - event["after_ms"] * 1e3 <= end_us:
            if start_us <= _returned_us(series, event):
                found.add("slow_calls")
        elif kind == "call_failed" and t_us <= end_us:
            failing[event["call"]] = t_us
        elif kind == "call_recovered" and t_us < start_us:
            failing.pop(event["call"], None)
    if failing:
        found.add("call_failed")
    if series.info.get("role") == "job" and unused(node, series, start_us, end_us):
        found.add("unused_gpu")
    kinds = {event.get("kind") for event in node.events}
    if "ended" not in kinds:
        found.add("sidecar_died")
    # The sidecar's first line says that it started. A log without it is not the log that the sidecar wrote.
    if "started" not in kinds:
        found.add("events_missing")
    return found


def unused(node: Node, series: Series, start_us: float, end_us: float) -> bool:
    """Whether the driver saw no process of the run on this GPU in a stretch of time, but saw one on another GPU of the
    job. Where it sees none on any GPU, it may not be able to show them (containers)."""
    if not np.isfinite(_inside(series.slow, "foreign_processes", start_us, end_us)).any():
        return False
    index = series.info["index"]
    used = _used(node, start_us, end_us)
    return used.get(index) is False and any(used.values())


def _used(node: Node, start_us: float, end_us: float) -> dict[int, bool]:
    """For each device, whether the driver saw a process of the run on it in a stretch of time.

    Unknown ones are left out.
    """
    found: dict[int, bool] = {}
    last: dict[int, int | None] = {}
    for event in node.events:
        if event.get("kind") != "processes" or "own" not in event or event.get("t_us", np.inf) > end_us:
            continue
        device = event["device"]
        if event["t_us"] > start_us and last.get(device):
            found[device] = True  # so far
        last[device] = event["own"]
    for device, own in last.items():
        if own is not None:
            found[device] = found.get(device, False) or own > 0
    return found


def _inside(slow: dict[str, np.ndarray], column: str, start_us: float, end_us: float) -> np.ndarray:
    """The readings of a column within a stretch of time."""
    return slow[column][(slow["t_us"] >= start_us) & (slow["t_us"] <= end_us)]


def _returned_us(series: Series, stuck: dict[str, Any]) -> float:
    """When the call of a `call_stuck` event returned (us); inf where it never did."""
    lane = series.slow if stuck["lane"] == STATE_LANE else series.fast
    ends_us = lane["t_us"] + lane["call_us"]
    later = np.searchsorted(ends_us, stuck["t_us"])
    return float(ends_us[later]) if later < len(ends_us) else np.inf
