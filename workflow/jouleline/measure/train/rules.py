"""When warm-up ends and how long the measured window is. The rules are written down, and decided once for all ranks."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

STEADY_RULE = (
    "warm-up goes by chunks of warmup_steps; it ends when the median step time of a chunk differs from that of the "
    "chunk before by at most steady_rel and the device has start_temperature_min_c, or after warmup_max_steps steps "
    "or twice window_s seconds without the first chunk"
)
WARMUP_WINDOWS = 2
# The longest time between two updates of the energy counter of an NVIDIA GPU (s).
LONGEST_TICK_S = 0.1
# A window has two edges, each anywhere within a tick of the meter: standard deviation tick / sqrt(12) each.
_EDGE_SHARE = math.sqrt(2 / 12)
# The last chunk's median may be a little slow, and a window that is too short costs one more collective.
_MARGIN = 1.02


def drift_rel(times_s: Sequence[float], protocol: Mapping[str, Any]) -> float | None:
    """The share by which the medians of the last two chunks of warm-up steps differ. None for fewer than two chunks."""
    chunk = max(protocol["warmup_steps"], 1)
    if len(times_s) < 2 * chunk:
        return None
    before, now = median(times_s[-2 * chunk : -chunk]), median(times_s[-chunk:])
    return abs(now - before) / before


def is_steady(times_s: Sequence[float], protocol: Mapping[str, Any]) -> bool:
    """Whether the last two chunks of warm-up step times agree within steady_rel."""
    drift = drift_rel(times_s, protocol)
    return drift is not None and drift <= protocol["steady_rel"]


def warmup_is_over(
    times_s: Sequence[float], protocol: Mapping[str, Any], temperature_c: float | None = None
) -> bool:
    """The rule of STEADY_RULE, asked after each chunk. It does not wait for an unknown temperature."""
    # Libraries may load from a slow disk during the first chunk.
    counted_s = sum(times_s[max(protocol["warmup_steps"], 1) :])
    spent = len(times_s) >= protocol["warmup_max_steps"] or counted_s >= WARMUP_WINDOWS * protocol["window_s"]
    least_c = protocol["start_temperature_min_c"]
    cold = least_c is not None and temperature_c is not None and temperature_c < least_c
    return spent or (is_steady(times_s, protocol) and not cold)


def window_seconds(protocol: Mapping[str, Any], tick_s: float | None) -> float:
    """The least length of the measured window: window_s, or more where the meter's edges need it.

    A meter that ticks every `tick_s` places each edge of a window within one tick. For a window of T seconds at
    constant power this is a relative standard uncertainty of sqrt(2/12) tick_s / T. The window is made long enough for
    edge_target_rel, up to window_max_s. If `tick_s` is None (unknown), only window_s counts.
    """
    seconds = protocol["window_s"]
    if protocol["edge_target_rel"] and tick_s:
        seconds = max(
            seconds, min(_EDGE_SHARE * tick_s / protocol["edge_target_rel"], protocol["window_max_s"])
        )
    return seconds


def window_steps(step_s: float, seconds: float, protocol: Mapping[str, Any]) -> int:
    """Steps of a window of at least `seconds` and window_steps. window_max_s limits those that come from seconds."""
    wanted = math.ceil(_MARGIN * seconds / step_s)
    longest = max(math.floor(protocol["window_max_s"] / step_s), 1)
    return max(protocol["window_steps"], min(wanted, longest), 1)


def more_steps(elapsed_s: float, done: int, seconds: float, protocol: Mapping[str, Any]) -> int:
    """Steps to add to a window of `done` steps that took `elapsed_s`; 0 where it is long enough."""
    missing = min(seconds, protocol["window_max_s"]) - elapsed_s
    return math.ceil(_MARGIN * missing * done / elapsed_s) if missing > 0 else 0
