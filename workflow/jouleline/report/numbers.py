"""Numbers for readers: with a unit, only meaningful digits, and a dash where unknown."""

import math
from typing import Any

DASH = "–"
_THIN = "\u202f"  # narrow no-break space: between thousands, and between a number and its unit
_MINUS = "\u2212"
_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"),
       (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))  # fmt: skip
# Units of ratios. An SI prefix before them has no meaning.
_PLAIN_UNITS = ("", "1", "%")


class Shown(str):
    """A number as a reader sees it, and the number itself for files and for sorting: `value`, in `unit` without a
    prefix (a fraction has "1", a count "")."""

    value: float
    unit: str

    def __new__(cls, text: str, value: float, unit: str = ""):
        shown = super().__new__(cls, text)
        shown.value, shown.unit = value, unit
        return shown

    @property
    def key(self) -> str:
        """The number to sort by, where its text (with a prefix or a power of ten) would sort wrongly."""
        plain = self.unit in _PLAIN_UNITS and "·10" not in self
        return "" if plain else f"{self.value:.6g}"


def known(value: Any) -> bool:
    """True for a finite number (or a bool or text), which may be printed as a value."""
    if value is None:
        return False
    return math.isfinite(value) if isinstance(value, float | int) else True


def number(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` significant digits and grouped thousands. A dash when it is null or not finite."""
    if not known(value):
        return DASH
    value = float(value)
    if value == 0:
        return Shown("0", value)
    exponent = math.floor(math.log10(abs(value)))
    if exponent >= 7 or exponent < -4:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return Shown(f"{mantissa}·10{_superscript(int(power))}".replace("-", _MINUS), value)
    rounded = round(value, digits - 1 - exponent)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return Shown(f"{rounded:,.{decimals}f}".replace(",", _THIN).replace("-", _MINUS), value)


def count(value: int | None) -> str:
    """A whole number with grouped thousands. A dash when null."""
    return Shown(f"{int(value):,}".replace(",", _THIN), int(value)) if known(value) else DASH


def share(part: int | None, whole: int | None) -> str:
    """How many of how many, unless it is all: "270 of 319". A dash when null."""
    return (
        f"{count(part)} of {count(whole)}" if known(part) and known(whole) and part != whole else count(part)
    )


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """`value` with an SI prefix on `unit`: 12 300 J is "12.3 kJ". Ratios ("", "1", "%") get no prefix."""
    if not known(value):
        return DASH
    return Shown(_quantity(float(value), unit, digits), float(value), unit)


def _quantity(value: float, unit: str, digits: int) -> str:
    if unit in _PLAIN_UNITS or value == 0:
        return f"{number(value, digits)}{_THIN}{unit}".rstrip(_THIN) if unit != "1" else number(value, digits)
    if not unit[0].isalpha() or unit[0] == "°" or unit.startswith(("log", "ln")):
        return f"{number(value, digits)}{_THIN}{unit}"
    # Round first, so that 999.9 does not become "1000 m..." with a prefix too low.
    size = abs(float(f"{value:.{digits - 1}e}"))
    for scale, prefix in _SI:
        if size >= scale * (1 - 1e-12):
            return f"{number(value / scale, digits)}{_THIN}{prefix}{unit}"
    return f"{number(value, digits)}{_THIN}{unit}"


def duration(seconds: float | None) -> str:
    """A duration: seconds below two minutes, minutes below two hours, then hours, then days."""
    if not known(seconds) or seconds < 120:
        return quantity(seconds, "s")
    for size, unit, most in ((60, "min", 7200), (3600, "h", 172_800), (86_400, "d", math.inf)):
        if seconds < most:
            return Shown(f"{number(seconds / size)}{_THIN}{unit}", seconds, "s")
    return DASH


def percent(fraction: float | None) -> str:
    """A fraction as per cent: 0.0534 is "5.3 %"; at least two significant digits, at most one decimal."""
    if not known(fraction):
        return DASH
    return Shown(f"{_per_cent(fraction, 2)}{_THIN}%", float(fraction), "1")


def signed_percent(fraction: float | None) -> str:
    """A signed fraction as per cent. The sign is always shown."""
    if not known(fraction):
        return DASH
    text = percent(fraction)
    return Shown(f"+{text}", text.value, "1") if fraction > 0 else text


def points(fraction: float | None) -> str:
    """A difference of two percentages as signed percentage points: -0.0512 is "−5.1"."""
    if not known(fraction):
        return DASH
    return Shown(f"{'+' if fraction > 0 else ''}{_per_cent(fraction)}", 100 * float(fraction), "points")


def percent_interval(low: float | None, high: float | None) -> str:
    """Bounds given as fractions: "4.1 to 7.9 %". A dash when either is unknown."""
    if not (known(low) and known(high)):
        return DASH
    return f"{_per_cent(low)} to {_per_cent(high)}{_THIN}%"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Bounds as "low to high". A dash when either is unknown."""
    if not (known(low) and known(high)):
        return DASH
    return f"{number(low, digits)} to {number(high, digits)}"


def with_uncertainty(value: float | None, uncertainty: float | None) -> str:
    """Value ± u. u has two significant digits, and value has the same decimals. Four digits when u is unknown.

    An uncertainty below 0.05 % of the value is smaller than the shown digits, so it is left out.
    """
    if not known(value) or not known(uncertainty) or uncertainty < 5e-4 * abs(value) or uncertainty == 0:
        return number(value, 4)
    decimals = max(0, 1 - math.floor(math.log10(uncertainty)))
    text = f"{value:,.{decimals}f} ± {uncertainty:,.{decimals}f}"
    return Shown(text.replace(",", _THIN).replace("-", _MINUS), float(value))


def text(value: Any) -> str:
    """Any scalar as text: a dash for null, yes or no for a bool, four digits for a fraction."""
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 4)
    return str(value)


def _per_cent(fraction: float, digits: int = 2) -> str:
    value = 100 * float(fraction)
    size = abs(value)
    if size >= 9999.5:
        return number(value, 3)
    decimals = 1 if size >= 0.095 else 2
    if size >= 99.5 or (digits <= 2 and size >= 19.95):
        decimals = 0
    return f"{value:,.{decimals}f}".replace(",", _THIN).replace("-", _MINUS)


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
