"""How a run is measured: the keys of the protocol, their frozen defaults, and the check of what a user gives.

A key at its default is not part of the parameters of a measurement, so a new key measures nothing again.
"""

import math
from collections.abc import Mapping
from typing import Any

from jouleline.errors import UserError

# key: (frozen default, unit, meaning)
PROTOCOL: dict[str, tuple[Any, str, str]] = {
    "device": ("auto", "", "auto, cpu or cuda"),
    "meter": ("auto", "", "auto, nvml, rapl or estimate; auto takes the best that is present"),
    "period_ms": (20, "ms", "Sampling period of the sidecar's fast lane"),
    "warmup_steps": (5, "steps", "Least number of warm-up steps"),
    "warmup_max_steps": (200, "steps", "Warm-up ends here, or after 2 x window_s, even if not steady"),
    "steady_rel": (
        0.05,
        "",
        "Steady: the medians of two chunks of warmup_steps differ by less than this share",
    ),
    "window_steps": (10, "steps", "Least number of measured steps"),
    "window_s": (3.0, "s", "Least length of the measured window"),
    "window_max_s": (120.0, "s", "Aim of the longest measured window"),
    "edge_target_rel": (
        None,
        "",
        "Lengthen the window until the meter's edge uncertainty is below this share",
    ),
    "eval_batches": (4, "batches", "Batches of the evaluation after the window"),
    "threads_per_device": (1, "threads", "CPU threads of one rank where the device is a CPU"),
    "idle_s": (1.0, "s", "Idle baseline before and after a run"),
    "cooldown_max_s": (0.0, "s", "Longest wait for the start temperature"),
    "start_temperature_c": (None, "°C", "Start a run only below this device temperature"),
    "start_temperature_min_c": (
        None,
        "°C",
        "Warm up, within the limits above, until the device is this warm",
    ),
    "estimate_w_per_core": (10.0, "W", "Declared power of a busy core, for the estimate meter"),
    "estimate_idle_w": (5.0, "W", "Declared idle power, for the estimate meter"),
    "calibration_s": (
        60.0,
        "s",
        "Time the calibration of a node, and of the links of each number of nodes, may take",
    ),
    "startup_timeout_s": (600.0, "s", "A rank that is not training by then has failed"),
}
PROTOCOL_DEFAULTS = {key: default for key, (default, _, _) in PROTOCOL.items()}


_AT_LEAST_ONE = ("period_ms", "threads_per_device", "warmup_max_steps", "window_steps")


def complete_protocol(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the frozen defaults of the protocol; raises UserError with all of its problems."""
    if not isinstance(protocol, Mapping):
        raise UserError(f"the protocol must be an object of keys and values, not {protocol!r}")
    problems = protocol_problems(protocol)
    if problems:
        raise UserError("\n  ".join(problems))
    return {**PROTOCOL_DEFAULTS, **protocol}


def protocol_problems(protocol: Mapping[str, Any]) -> list[str]:
    """What is wrong with a protocol as given: unknown keys, wrong types, values that exclude each other."""
    problems = []
    for key, value in protocol.items():
        if key not in PROTOCOL:
            problems.append(f"protocol.{key} is not known; known are {', '.join(sorted(PROTOCOL))}")
        elif not _is_like(value, PROTOCOL_DEFAULTS[key]):
            problems.append(f"protocol.{key} must be like {PROTOCOL_DEFAULTS[key]!r}, not {value!r}")
        elif key in _AT_LEAST_ONE and value < 1:
            problems.append(f"protocol.{key} must be at least 1, not {value!r}")
    for key, choices in {
        "device": ("auto", "cpu", "cuda"),
        "meter": ("auto", "nvml", "rapl", "estimate"),
    }.items():
        if isinstance(protocol.get(key), str) and protocol[key] not in choices:
            problems.append(f"protocol.{key} is {protocol[key]!r}; choose from {', '.join(choices)}")
    return problems or _contradictions({**PROTOCOL_DEFAULTS, **protocol})


def _contradictions(protocol: Mapping[str, Any]) -> list[str]:
    problems = []
    low, high = protocol["start_temperature_min_c"], protocol["start_temperature_c"]
    if low is not None and high is not None and low > high:
        problems.append(
            f"protocol.start_temperature_min_c {low} is above start_temperature_c; give a band from low to high"
        )
    if protocol["window_s"] > protocol["window_max_s"]:
        problems.append(
            f"protocol.window_s {protocol['window_s']:g} is above "
            f"window_max_s {protocol['window_max_s']:g}; raise that too"
        )
    return problems


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(default, str):
        return isinstance(value, str)
    if value is None:
        return default is None
    if isinstance(default, int):
        return isinstance(value, int) and value >= 0
    return isinstance(value, int | float) and 0 <= value < math.inf
