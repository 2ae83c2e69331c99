"""Axes whose ticks are easy to read: "20 %", "5 kJ"."""

import math

from jouleline.report.numbers import duration, quantity

_NO_UNIT = "u"  # a stand-in that takes a prefix and is then removed


def log_ticks(axis, low: float, high: float, unit: str) -> None:
    """Put SI ticks on a logarithmic axis between `low` and `high`: decades, or 1-2-5 where there are few decades.

    An empty `unit` gives the prefix alone ("20 G"), for an axis whose label names the unit.
    """
    _log_ticks(axis, low, high, lambda value, _: quantity(value, unit or _NO_UNIT, 1).removesuffix(_NO_UNIT))


def _log_ticks(axis, low: float, high: float, label) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    decades = math.log10(high / low)
    steps = (
        (1,)
        if decades > 3.2
        else (1, 3)
        if decades > 1.9
        else (1, 2, 5)
        if decades > 0.9
        else (1, 2, 3, 4, 5, 7)
    )
    stride = max(1, math.ceil(decades / 6))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**p for p in powers if p % stride == 0 for m in steps if low <= m * 10.0**p <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(label))


def duration_ticks(axis, low: float, high: float) -> None:
    """Put ticks in s, min, h or d on a logarithmic axis of seconds between `low` and `high`, at most five."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = [tick for tick in _DURATIONS_S if low <= tick <= high]
    axis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // 5) or 1]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))


# Round numbers of seconds, minutes, hours and days.
_DURATIONS_S = (
    *(m * 10.0**p for p in range(-3, 2) for m in (1, 2, 5) if m * 10.0**p <= 60),
    *(60.0 * m for m in (2, 5, 10, 20, 30, 60, 90)),
    *(3600.0 * h for h in (2, 3, 4, 5, 7, 10, 15, 24)),
    *(86400.0 * m * 10**p for p in range(4) for m in (2, 5, 10)),
)


def percent_log_ticks(axis, low: float, high: float) -> None:
    """Put ticks in per cent on a logarithmic axis of fractions between `low` and `high`."""
    _log_ticks(axis, low, high, lambda value, _: f"{100 * value:,.6g}".replace(",", "\u202f") + "\u202f%")


def percent_ticks(axis) -> None:
    """Label a linear axis of fractions in per cent."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:.3g}".replace("-", "−") + "\u202f%")
    )
