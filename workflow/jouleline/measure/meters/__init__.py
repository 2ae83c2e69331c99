"""The meters behind one small interface: what there is to read, how often, and what is known about it.

A meter has `name`, `energy_source`, `devices` (list of dicts for the meta file, in index order), `lanes()`
(what to read and how often), `capabilities` and `facts` (dicts for the meta file), `check()` (called once a
second from the main thread; returns events) and `close()`. `open_meter` adds `passed_over`.
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
    """Open the meter `name`; `auto` takes the first there is of nvml, rapl, estimate, and nvml where GPUs are named.

    The meter's `passed_over` says why it is not an earlier one. Raises UserError with exit code 3 when it is not there;
    the line says what is missing.
    """
    from jouleline.measure.meters.estimate import EstimateMeter
    from jouleline.measure.meters.nvml import NvmlMeter
    from jouleline.measure.meters.rapl import RaplMeter

    meters = {"nvml": NvmlMeter, "rapl": RaplMeter, "estimate": EstimateMeter}
    if name == "auto" and options.gpus != "auto":
        name = "nvml"
    passed_over = []
    for kind in meters if name == "auto" else (name,):
        try:
            meter = meters[kind](options)
            meter.passed_over = passed_over
            return meter
        except UserError as error:
            if name != "auto" or error.exit_code != NO_METER:
                raise
            passed_over.append(str(error))
    raise AssertionError("an estimate can always be opened")


def passed_over_line(name: str, reasons: list[str]) -> str:
    """What is said of a meter that `auto` chose: why it is not a better one, without the remedies."""
    what = "estimate, which is declared and not measured" if name == "estimate" else name
    return f"note: the meter is {what}: {'; '.join(reason.split(';')[0] for reason in reasons)}"


@dataclass
class Options:
    """What the meters are told: who is measured, how often, which GPUs, and the watts of the estimate."""

    root_pid: int
    period_s: float
    node: str
    gpus: str = "auto"
    watts_per_core: float = 10.0
    idle_watts: float = 5.0
