"""The choice of a meter: the one that was named, or the best one that works."""

from collections.abc import Callable

from jouleline.errors import UserError
from jouleline.measure.meters.base import NO_METER, Meter, Options
from jouleline.measure.meters.estimate import EstimateMeter
from jouleline.measure.meters.nvml import NvmlMeter
from jouleline.measure.meters.rapl import RaplMeter

# In the order of `auto`.
METERS: dict[str, Callable[[Options], Meter]] = {
    "nvml": NvmlMeter,
    "rapl": RaplMeter,
    "estimate": EstimateMeter,
}


def open_meter(name: str, options: Options) -> Meter:
    """Open the meter `name`. `auto` takes the first that works of nvml, rapl, estimate; nvml where GPUs are named.

    The meter's `passed_over` says why no earlier one was taken. Raises UserError with exit code 3 where the meter does
    not work; the line says what is missing.
    """
    if name == "auto" and options.gpus != "auto":
        name = "nvml"
    passed_over = []
    for kind in METERS if name == "auto" else (name,):
        try:
            meter = METERS[kind](options)
            meter.passed_over = passed_over
            return meter
        except UserError as error:
            if name != "auto" or error.exit_code != NO_METER:
                raise
            passed_over.append(str(error))
    raise AssertionError("an estimate can always be opened")


def passed_over_line(name: str, reasons: list[str]) -> str:
    """The sentence about a meter that `auto` chose: why not a better one. Without the remedies."""
    what = "estimate, which is declared and not measured" if name == "estimate" else name
    return f"note: the meter is {what}: {'; '.join(reason.split(';')[0] for reason in reasons)}"
