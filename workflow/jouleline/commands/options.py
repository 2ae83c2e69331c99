"""Options that several programs take."""

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
