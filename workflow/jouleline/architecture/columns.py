"""Rows of any form (a dict, a list of dicts, a mapping of columns, a DataFrame) as equally long columns."""

from collections.abc import Sequence
from copy import copy
from types import SimpleNamespace
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.schemas.row import ROW_COLUMNS
from jouleline.schemas.runs import ASKED

# Columns that do not change the work: repetitions and their seeds, and where weights and texts come from.
_IDLE = {"replicate", "seed", "learning_rate", "checkpoint", "dataset", "gpus_per_node"}
# In these columns null is a value with a meaning. NaN represents it.
OPTIONAL = ("kv_heads", "head_dim", "tied", "sliding_window", "image_size", "patch_size")
NUMBERS = tuple(c.name for c in ROW_COLUMNS if c.type != "string" and c.name not in {*_IDLE, *OPTIONAL})
_CHOICES = {c.name: c.choices for c in (*ROW_COLUMNS, *ASKED)}
# A family without a formula is refused only when its formula is needed.
TEXTS = {
    c.name: _CHOICES[c.name] if c.name != "model_type" else ()
    for c in ROW_COLUMNS
    if c.type == "string" and c.name not in _IDLE
}
_DEFAULTS = {column.name: column.default for column in (*ASKED, *ROW_COLUMNS)} | {"num_labels": 2}


def read_columns(rows: Any) -> tuple[SimpleNamespace, bool]:
    """Return (columns, scalar): a float64 array or `Texts` per name, all of one length; and whether `rows` was one row.

    A missing name or a null takes its default; in OPTIONAL it is NaN. Raises UserError: a required name is missing, a
    value is no number, or a text is not allowed.
    """
    if isinstance(rows, Sequence):
        rows = {name: [row.get(name) for row in rows] for name in {key for row in rows for key in row}}
    names = (*NUMBERS, *OPTIONAL, *TEXTS, "device_count", "gpus_per_node")
    given = {name: rows[name] for name in names if name in rows}
    many = [name for name, value in given.items() if value is not None and not np.isscalar(value)]
    lengths = {len(given[name]) for name in many}
    if len(lengths) > 1:
        raise UserError(
            f"columns of different lengths {sorted(lengths)}; give every column one value per row"
        )
    length = lengths.pop() if many else 1
    columns = {name: _number(name, given.get(name), _DEFAULTS[name], length) for name in NUMBERS}
    columns |= {name: _number(name, given.get(name), np.nan, length) for name in OPTIONAL}
    columns |= {name: Texts(name, given.get(name), length) for name in TEXTS}
    columns["precision"].rename("tf32", "fp32")  # they differ only in the rate of products
    # Tables have device_count. Rows of a grid have nodes and gpus_per_node instead.
    by_nodes = columns["nodes"] * _number("gpus_per_node", given.get("gpus_per_node"), 1, length)
    columns["device_count"] = _number("device_count", given.get("device_count"), by_nodes, length)
    return SimpleNamespace(**columns), not many


class Texts:
    """A column of texts, coded once. So each comparison and look-up is one vector operation."""

    def __init__(self, name: str, values: Any, length: int):
        if values is None or np.isscalar(values):
            self.codes, distinct = np.zeros(length, np.intp), [values]
        elif hasattr(values, "factorize"):  # a pandas column; its nulls get the code -1
            self.codes, distinct = values.factorize()
            distinct = [*distinct, None]
        else:
            index = {value: code for code, value in enumerate(dict.fromkeys(values))}
            self.codes, distinct = np.fromiter(map(index.__getitem__, values), np.intp, length), list(index)
        self.values = [str(value) if isinstance(value, str) else _DEFAULTS[name] for value in distinct]
        allowed = TEXTS[name] or self.values
        for value in self.values:
            if value not in allowed:
                raise UserError(f"{name} is {value!r}; use one of {', '.join(allowed)}")

    def __eq__(self, text: object) -> np.ndarray:
        return self.lookup(lambda value: value == text)

    def __ne__(self, text: object) -> np.ndarray:
        return ~(self == text)

    __hash__ = None

    def lookup(self, function) -> np.ndarray:
        """`function` of each distinct text: one entry (or row) per row of the column."""
        return np.array([function(value) for value in self.values])[self.codes]

    def rename(self, old: str, new: str) -> None:
        self.values = [new if value == old else value for value in self.values]

    def take(self, rows: np.ndarray) -> "Texts":
        """The same column of some rows only, by index."""
        part = copy(self)
        part.codes = self.codes[rows]
        return part


def _number(name: str, value: Any, default: Any, length: int) -> np.ndarray:
    if value is None:
        value = np.nan
    try:
        if hasattr(value, "to_numpy"):  # a pandas column; numpy does not read its null as a number
            array = value.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            array = np.asarray(value, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} holds a value that is no number ({error}); correct that row") from error
    array = np.broadcast_to(array, (length,))
    empty = np.isnan(array)
    if not empty.any():
        return array
    if default is None:
        raise UserError(
            f"{name} is missing in row {int(empty.argmax())}; the proxies need it, give it a number"
        )
    return np.where(empty, default, array)
