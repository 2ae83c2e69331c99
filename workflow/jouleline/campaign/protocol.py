"""How a run is measured: the keys of the protocol, their frozen defaults, and the check of what a user gives.

A key at its default is not part of a measurement's parameters. So a new key measures nothing again.
"""

import math
from collections.abc import Mapping
from typing import Any

from jouleline.errors import UserError
from jouleline.schemas import Column


def _key(
    name: str, default: Any, unit: str, meaning: str, least: float = 0, choices: tuple[str, ...] = ()
) -> Column:
    """A key with the type of its default. null means that no number is given."""
    kind = {str: "string", int: "int32"}.get(type(default), "float64")
    return Column(name, kind, unit, meaning, default, choices=choices, bounds=(least, math.inf))


_METERS = ("auto", "nvml", "rapl", "estimate")

PROTOCOL: tuple[Column, ...] = (
    _key(
        "device", "auto", "", "What is measured; auto: a GPU if there is one", choices=("auto", "cpu", "cuda")
    ),
    _key("meter", "auto", "", "What reads the energy; auto: the best that is present", choices=_METERS),
    _key("period_ms", 20, "ms", "Sampling period of the sidecar's fast lane", 1),
    _key("warmup_steps", 5, "steps", "Least number of warm-up steps"),
    _key("warmup_max_steps", 200, "steps", "Warm-up ends here, or after 2 x window_s, even if not steady", 1),
    _key("steady_rel", 0.05, "", "Steady: the medians of two chunks of warmup_steps differ by less"),
    _key("window_steps", 10, "steps", "Least number of measured steps", 1),
    _key("window_s", 3.0, "s", "Least length of the measured window"),
    _key("window_max_s", 120.0, "s", "Aim of the longest measured window"),
    _key(
        "edge_target_rel", None, "", "Lengthen the window until the relative edge uncertainty is below this"
    ),
    _key("eval_batches", 4, "batches", "Batches of the evaluation after the window"),
    _key("threads_per_device", 1, "threads", "CPU threads of one rank where the device is a CPU", 1),
    _key("idle_s", 1.0, "s", "Idle baseline before and after a run"),
    _key("cooldown_max_s", 0.0, "s", "Longest wait for the start temperature"),
    _key("start_temperature_c", None, "°C", "Start a run only below this device temperature"),
    _key("start_temperature_min_c", None, "°C", "Warm up, within the limits above, until it is this warm"),
    _key("estimate_w_per_core", 10.0, "W", "Declared power of a busy core, for the estimate meter"),
    _key("estimate_idle_w", 5.0, "W", "Declared idle power, for the estimate meter"),
    _key("calibration_s", 60.0, "s", "Time the calibration of a node, or of one number of nodes, may take"),
    _key("startup_timeout_s", 600.0, "s", "A rank that is not training by then has failed"),
)
KEYS = {column.name: column for column in PROTOCOL}
PROTOCOL_DEFAULTS = {column.name: column.default for column in PROTOCOL}


def complete_protocol(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the frozen defaults of the protocol; raises UserError with all of its problems."""
    if not isinstance(protocol, Mapping):
        raise UserError(f"the protocol must be an object of keys and values, not {protocol!r}")
    problems = protocol_problems(protocol)
    if problems:
        raise UserError("\n  ".join(problems))
    return {**PROTOCOL_DEFAULTS, **protocol}


def protocol_problems(protocol: Mapping[str, Any]) -> list[str]:
    """The problems of a protocol as given: unknown keys, wrong values, values that exclude each other."""
    problems = []
    for key, value in protocol.items():
        if key not in KEYS:
            problems.append(f"protocol.{key} is not known; known are {', '.join(sorted(KEYS))}")
        elif text := KEYS[key].problem(value):
            problems.append(f"protocol.{text}")
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


def measured_so(record: Mapping[str, Any], code_digest: str, protocol: Mapping[str, Any]) -> bool:
    """Whether a run was measured by this code and this complete protocol. Otherwise it is measured again."""
    return record["code_digest"] == code_digest and {**PROTOCOL_DEFAULTS, **record["protocol"]} == protocol
