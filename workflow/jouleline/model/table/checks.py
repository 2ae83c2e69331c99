"""What a runs table may hold: values cast to the types of their columns, bounds, and the line that says what is
wrong."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.table.files import Columns
from jouleline.schemas import Column
from jouleline.schemas.runs import (
    ASKED_BOUNDS,
    ENERGY_SCOPES,
    ENERGY_SOURCES,
    MEASURED_BOUNDS,
    POWER_BOUNDS_W,
    RUNS,
    STATUSES,
    USUAL_POWER_W,
    VERDICTS,
)

LENGTHS = ("steps", "samples", "tokens")
"""The length of a run: measured, or asked for a run that is still to be made."""

_TRUTH = dict.fromkeys(("true", "yes", "1", "1.0"), True) | dict.fromkeys(("false", "no", "0", "0.0"), False)
_OR_INVALID = ": correct it, or mark the row verdict=invalid"

_TOO_LARGE = {"int32": 2.0**31, "int64": 2.0**62}


def cast(column: Column, values: np.ndarray, default: Any, where: str) -> np.ndarray:
    """The values of one column in its type, with nulls as `default`. Raises UserError that names row and remedy.

    Integers are float64 where a null or an infinity is among them.
    """
    name = column.name
    if column.type == "string":
        return texts(values, f"{where}: {name}", default)
    if column.type == "bool":
        return _each(values, _truth, default, f"{where}: {name}", "use true or false").astype(bool)
    numbers = as_numbers(values, f"{where}: {name}")
    if default is not None:
        numbers = np.where(np.isnan(numbers), float(default), numbers)
    if column.type == "float64":
        return numbers
    finite = np.isfinite(numbers)
    with np.errstate(invalid="ignore"):
        none = (numbers % 1 != 0) | (np.abs(numbers) >= _TOO_LARGE[column.type])
    _point_out(numbers, finite & none, f"{where}: {name}", f"give a whole number ({column.type})")
    return numbers.astype(np.int64) if finite.all() else numbers


def as_numbers(values: np.ndarray, what: str) -> np.ndarray:
    """Values as float64, nulls as NaN. Raises UserError with `what` for the first value that is no number."""
    if values.dtype.kind in "iuf":
        return values.astype(float)
    try:
        if any(isinstance(value, bool) for value in values.tolist()):
            raise TypeError
        return np.where(is_null(values), np.nan, values).astype(float)
    except (TypeError, ValueError, OverflowError):  # again, one by one, to find the wrong one
        return _each(values, _as_number, np.nan, what, "give a number").astype(float)


def _as_number(value: Any) -> float:
    """A value as a number. A truth value (TRUE, yes) does not count as 1."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError
    return float(value)


def _each(
    values: np.ndarray, convert: Callable[[Any], Any], default: Any, what: str, remedy: str
) -> np.ndarray:
    """`convert` of every value that is not null. Its TypeErrors, ValueErrors and OverflowErrors are shown to the
    user."""
    made = np.full(len(values), default, dtype=object)
    for row in np.flatnonzero(~is_null(values)):
        try:
            made[row] = convert(values[row])
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{what} is {_shown(values[row])} in row {row + 1}; {remedy}") from error
    return made


def _text(value: Any) -> str:
    """A value as text. Whole numbers as ids and devices (2080, read as 2080.0) lose nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict, bytes)):
        raise TypeError
    whole = isinstance(value, (float, np.floating)) and np.isfinite(value) and value % 1 == 0
    return str(int(value) if whole else value)


def _truth(value: Any) -> bool:
    try:
        return _TRUTH[str(value).strip().lower()]
    except KeyError as error:
        raise ValueError from error


def texts(values: np.ndarray, what: str, default: Any = None) -> np.ndarray:
    """Values as text, nulls as `default`. Raises UserError with `what` for the first value that is no text. Object
    [rows]."""
    empty = is_null(values)
    if set(map(type, values[~empty])) <= {str}:  # the usual case, and many times as fast
        return np.where(empty, default, values)
    return _each(values, _text, default, what, "give text")


def is_null(values: np.ndarray) -> np.ndarray:
    """None, "" or NaN, compared element by element."""
    if values.dtype.kind != "O":
        return values != values
    return (values == None) | (values == "") | (values != values)  # noqa: E711


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _point_out(values: np.ndarray, bad: np.ndarray, what: str, remedy: str, run_ids=None) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        named = f" ({run_ids[row]})" if run_ids is not None and run_ids[row] else ""
        raise UserError(f"{what} is {_shown(values[row])} in row {row + 1}{named}; {remedy}")


def refuse(columns: Columns, where: str, name: str, bad: np.ndarray, remedy: str) -> None:
    """Raise UserError with the first bad value of a column, its row, and the remedy."""
    _point_out(columns[name], bad, f"{where}: {name}", remedy, columns["run_id"])


def check_values(columns: Columns, where: str, planned: bool) -> None:
    """Refuse values that no run can have, one by one. A null is wrong only where its column is required.

    Rows that are not `ok` and valid may lack the device and what was not measured. For `planned` configurations only
    the values that are known before a run are checked.
    """
    for name, allowed in (("energy_source", ENERGY_SOURCES), ("status", STATUSES), ("verdict", VERDICTS)):
        known = np.logical_or.reduce([columns[name] == one for one in allowed])
        refuse(columns, where, name, ~known, f"use one of {', '.join(allowed)}")
    scope = columns["energy_scope"]
    bad = ~is_null(scope) & ~np.isin(scope.astype(str), ENERGY_SCOPES)
    refuse(columns, where, "energy_scope", bad, f"use one of {', '.join(ENERGY_SCOPES)}, or leave it empty")
    every = np.ones(len(columns["run_id"]), dtype=bool)
    fit = every if planned else usable(columns)
    for column in RUNS.columns:
        if column.type == "string" and column.required:
            refuse(columns, where, column.name, fit & is_null(columns[column.name]), "give a value")
        elif column.name in ASKED_BOUNDS:
            _check_bounds(columns, where, column, every, column.required)
        elif column.name in LENGTHS and planned:
            _check_bounds(columns, where, column, every, required=False)
        elif column.name in MEASURED_BOUNDS and not planned:
            _check_bounds(columns, where, column, fit, column.required, _OR_INVALID)


def _check_bounds(
    columns: Columns, where: str, column: Column, rows: np.ndarray, required: bool, otherwise: str = ""
) -> None:
    values, (low, high) = columns[column.name], (ASKED_BOUNDS | MEASURED_BOUNDS)[column.name]
    bad = ~((values >= low) & (values <= high)) & (required | ~np.isnan(values))
    unit = f" {column.unit}" if column.unit else ""
    refuse(columns, where, column.name, rows & bad, f"it must be {low:g} to {high:g}{unit}{otherwise}")


def check_together(columns: Columns, where: str, planned: bool) -> None:
    """Refuse columns that contradict each other, although each is complete and possible."""
    _check_counts(columns, where)
    if not planned:
        for column in RUNS.columns:
            if column.name in LENGTHS:  # derived values
                _check_bounds(columns, where, column, usable(columns), True, _OR_INVALID)
        _check_power(columns, where, usable(columns))
        _check_ids(columns, where)


def _check_counts(columns: Columns, where: str) -> None:
    count, tensor = columns["device_count"], columns["tensor_parallel"]
    nodes, per_node = columns["nodes"], columns["gpus_per_node"]
    for name, bad, remedy in (
        ("tensor_parallel", count % tensor != 0, "it must divide device_count"),
        (
            "data_parallel",
            columns["data_parallel"] * tensor != count,
            "with tensor_parallel it must multiply to device_count; correct one, or leave data_parallel out",
        ),
        ("nodes", count % nodes != 0, "it must divide device_count"),
        (
            "gpus_per_node",
            ~np.isclose(per_node * nodes, count, rtol=1e-9),
            "with nodes it must multiply to device_count; correct one, or leave gpus_per_node out",
        ),
        ("frozen_layers", columns["frozen_layers"] > columns["layers"], "it cannot be more than layers"),
    ):
        refuse(columns, where, name, bad, remedy)


def _device_power_w(columns: Columns) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return columns["energy_j"] / columns["time_s"] / columns["device_count"]


def _check_power(columns: Columns, where: str, fit: np.ndarray) -> None:
    """Refuse joules and seconds that no device can have together. One of them is in another unit."""
    power, (low, high) = _device_power_w(columns), POWER_BOUNDS_W
    _point_out(
        *(power, fit & ~((power >= low) & (power <= high)), f"{where}: energy_j / time_s per device"),
        f"it must be {low:g} to {high:g} W: give J and s (1 kWh is 3.6e6 J, 1 ms 0.001 s), "
        "or mark the row verdict=invalid",
        columns["run_id"],
    )


def note_power(columns: Columns, where: str) -> None:
    """Tell on stderr where joules and seconds are possible but unusual, so that a unit may be wrong."""
    power = _device_power_w(columns)[usable(columns)]
    if len(power) and not USUAL_POWER_W[0] <= np.median(power) <= USUAL_POWER_W[1]:
        print(
            f"note: {where}: devices take {np.median(power):.3g} W in the median; are the energies J and the times s?",
            file=sys.stderr,
        )


def _check_ids(columns: Columns, where: str) -> None:
    run_ids, counts = np.unique(columns["run_id"].astype(str), return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{where}: run_id {run_ids[counts > 1][0]} stands twice; give every run its own")


def usable(columns: Columns) -> np.ndarray:
    """Rows that may be fitted: status ok and verdict not invalid. Bool [rows]."""
    return (columns["status"] == "ok") & (columns["verdict"] != "invalid")
