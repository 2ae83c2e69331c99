"""The meters behind one small interface: what there is to read, how often, and what is known about it.

A meter has `name`, `energy_source`, `devices` (list of dicts for the meta file, in index order), `lanes()`
(what to read and how often), `capabilities` and `facts` (dicts for the meta file), `check()` (called once a
second from the main thread; returns events) and `close()`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jouleline.errors import UserError

# Exit code of `--meter X` where there is no X.
NO_METER = 3

FAST, SLOW = 0, 1


@dataclass
class LaneSpec:
    """One thing to do at a fixed period: call the reader of every device and keep the tuple it returns.

    `columns` names the tuple's values as columns of the samples table. `readers` are by index of the device.
    """

    name: str
    lane: int
    period_s: float
    columns: tuple[str, ...]
    readers: dict[int, Callable[[], tuple[Any, ...]]] = field(repr=False)


def open_meter(name: str, options: "Options"):
    """Open the meter `name`; `auto` takes the first there is of nvml, rapl, estimate.

    Raises UserError with exit code 3 when it is not there; the line says what is missing.
    """
    from jouleline.measure.meters.estimate import EstimateMeter
    from jouleline.measure.meters.nvml import NvmlMeter
    from jouleline.measure.meters.rapl import RaplMeter

    meters = {"nvml": NvmlMeter, "rapl": RaplMeter, "estimate": EstimateMeter}
    if name != "auto":
        return meters[name](options)
    for kind in ("nvml", "rapl"):
        try:
            return meters[kind](options)
        except UserError as error:
            if error.exit_code != NO_METER:
                raise
    return EstimateMeter(options)


@dataclass
class Options:
    """What the meters are told: who is measured, how often, which GPUs, and the watts of the estimate."""

    root_pid: int
    period_s: float
    node: str
    gpus: str = "auto"
    watts_per_core: float = 10.0
    idle_watts: float = 5.0
