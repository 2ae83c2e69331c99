"""Which meter measures: the one that was named, or the best there is."""

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
    """Open the meter `name`; `auto` takes the first there is of nvml, rapl, estimate, and nvml where GPUs are named.

    The meter's `passed_over` says why it is not an earlier one. Raises UserError with exit code 3 when it is not there;
    the line says what is missing.
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
    """What is said of a meter that `auto` chose: why it is not a better one, without the remedies."""
    what = "estimate, which is declared and not measured" if name == "estimate" else name
    return f"note: the meter is {what}: {'; '.join(reason.split(';')[0] for reason in reasons)}"
