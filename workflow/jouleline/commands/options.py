"""Options that several programs take."""

import argparse
from typing import Any

from jouleline.errors import UserError
from jouleline.files import parse_json


def json_object(text: str, option: str) -> dict[str, Any]:
    """The JSON object given as an option. Raises UserError, which names the option, for anything else.

    >>> json_object('{"starts": 8}', "--options")
    {'starts': 8}
    """
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UserError(f"{option} is not JSON ({error}); give one object in quotes") from error
    if not isinstance(value, dict):
        raise UserError(f"{option} must be a JSON object, not {text[:40]!r}")
    return value


def add_prices(parser: argparse.ArgumentParser) -> None:
    """The options that turn kWh into money and CO2."""
    parser.add_argument("--price-per-kwh", type=float, help="price of electricity, per kWh")
    parser.add_argument("--currency", default="EUR", help="currency of the price")
    parser.add_argument(
        "--grid-gco2-per-kwh", type=float, help="carbon intensity of the electricity, gCO2e/kWh"
    )
    parser.add_argument(
        "--pue", type=float, default=1.0, help="power usage effectiveness, on cost and CO2 only"
    )
