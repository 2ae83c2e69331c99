"""Timing of short operations for the calibration, and the entries made from it."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jouleline.schemas.calibration import entry

LEAST_BLOCKS, MOST_BLOCKS = 3, 100
# sd of a normal distribution in units of its median absolute deviation.
_MAD_TO_SD = 1.4826


def from_times(quantity: str, amount: float, times_s: np.ndarray, method: str, **more: Any) -> dict[str, Any]:
    """The entry of `amount` per second (or of the time itself where `amount` is 0) from repeated times."""
    middle = float(np.median(times_s))
    spread = float(_MAD_TO_SD * np.median(np.abs(times_s - middle)) / middle)
    value = amount / middle if amount else middle
    return entry(quantity, value, method, u_rel=spread, n=len(times_s), **more)


def repeat(run: Callable[[], Any], wait: Callable[[], Any], seconds: float) -> np.ndarray:
    """Seconds per call of `run`, one value per block of calls. `wait` ends a block (device synchronize).

    Takes about `seconds`: at least LEAST_BLOCKS blocks, each much longer than the clock's step and the wait.
    """
    once = max(float(blocks(run, wait, 1, 1)[0]), 1e-7)
    calls = max(int(seconds / 20 / once), 1)
    times_s = blocks(run, wait, LEAST_BLOCKS, calls)
    more = int(seconds / (calls * np.median(times_s))) - LEAST_BLOCKS
    return np.append(times_s, blocks(run, wait, min(more, MOST_BLOCKS), calls)) if more > 0 else times_s


def blocks(run: Callable[[], Any], wait: Callable[[], Any], count: int, calls: int) -> np.ndarray:
    """Seconds per call of `run` in each of `count` blocks of `calls` calls. One call before them is not timed."""
    run()
    wait()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        times.append((time.perf_counter() - begin) / calls)
    return np.array(times)


def keep_busy(run: Callable[[], Any], wait: Callable[[], Any], seconds: float) -> None:
    """Call `run` for `seconds`. The queue of the device never holds more than some milliseconds of work."""
    until = time.perf_counter() + seconds
    calls = 1
    while (begin := time.perf_counter()) < until:
        for _ in range(calls):
            run()
        wait()
        if time.perf_counter() - begin < 5e-3:
            calls *= 2
