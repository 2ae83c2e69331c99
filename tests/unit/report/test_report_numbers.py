"""Numbers as text: units, significant digits, and a dash for what is unknown."""

import math

import pytest
from jouleline.report import numbers

T = "\u202f"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 3, "–"),
        (math.nan, 3, "–"),
        (math.inf, 3, "–"),
        (0, 3, "0"),
        (0.0, 3, "0"),
        (1234.5678, 4, f"1{T}235"),
        (9.996, 3, "10.0"),
        (-0.01234, 3, "−0.0123"),
        (2.5e-6, 2, "2.5·10⁻⁶"),
        (31415926, 3, "3.14·10⁷"),
    ],
)
def test_number(value, digits, text):
    assert numbers.number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "J", "–"),
        (12345.0, "J", f"12.3{T}kJ"),
        (999.9, "J", f"1.00{T}kJ"),
        (0.0021, "s", f"2.10{T}ms"),
        (2e-11, "J/FLOP", f"20.0{T}pJ/FLOP"),
        (0, "W", f"0{T}W"),
        (1.5, "", "1.50"),
        (-40.0, "W", f"−40.0{T}W"),
    ],
)
def test_quantity(value, unit, text):
    assert numbers.quantity(value, unit) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0534, f"5.3{T}%"), (0.2549, f"25{T}%"), (0.0004, f"0.04{T}%"), (None, "–"), (12.0, f"1{T}200{T}%")],
)
def test_percent(fraction, text):
    assert numbers.percent(fraction) == text


def test_signed_percent_always_shows_its_sign():
    assert numbers.signed_percent(0.02) == f"+2.0{T}%"
    assert numbers.signed_percent(-0.02) == f"−2.0{T}%"
    assert numbers.signed_percent(None) == "–"


def test_an_uncertainty_sets_the_digits_of_its_value():
    assert numbers.with_uncertainty(234.567, 0.42) == "234.57 ± 0.42"
    assert numbers.with_uncertainty(234.567, 0.0042) == "234.6"
    assert numbers.with_uncertainty(1234.567, 37.0) == f"1{T}235 ± 37"
    assert numbers.with_uncertainty(1234.567, None) == f"1{T}235"
    assert numbers.with_uncertainty(None, 1.0) == "–"


def test_half_an_interval_is_no_interval():
    assert numbers.interval(1.0, None) == "–"
    assert numbers.percent_interval(None, 0.1) == "–"
    assert numbers.percent_interval(0.041, 0.079) == f"4.1 to 7.9{T}%"
