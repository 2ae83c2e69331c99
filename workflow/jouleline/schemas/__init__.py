"""The tables that jouleline writes. Every column is defined once; Arrow schemas and the data dictionary come from it.

A table is a tuple of `Column`s. Each kind of table has a module (`runs`, `energy`, `checks`, `calibration`, `model`);
this one has what they share. pyarrow is imported inside functions, because the Snakefile reads names from here.
This room must not compute the value of any column.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import atomic_path, reading

SCHEMA_VERSION = 1

# Names of the Arrow types that a column may have.
_ARROW_TYPES = {
    "string": lambda pa: pa.string(),
    "int32": lambda pa: pa.int32(),
    "int64": lambda pa: pa.int64(),
    "float32": lambda pa: pa.float32(),
    "float64": lambda pa: pa.float64(),
    "bool": lambda pa: pa.bool_(),
    "list<string>": lambda pa: pa.list_(pa.string()),
    "list<int32>": lambda pa: pa.list_(pa.int32()),
    "list<float64>": lambda pa: pa.list_(pa.float64()),
}


# What a value of an Arrow type is in Python, and in words.
_PYTHON_TYPES = {
    "string": (str, "text"),
    "int32": (int, "a whole number"),
    "int64": (int, "a whole number"),
    "float64": (float, "a number"),
    "bool": (bool, "true or false"),
}


@dataclass(frozen=True)
class Column:
    """One column of a table or of a grid row, or one key of the protocol: everything about its values.

    `type` is an Arrow type. `unit` is "" where there is none. `default` is used where no value is given. `choices`
    (empty: any) and `bounds` (lowest and highest, both allowed) limit the values.
    """

    name: str
    type: str
    unit: str
    description: str
    default: Any = None
    required: bool = False
    choices: tuple[Any, ...] = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def python_type(self) -> type:
        """The Python type of a value: str, int, float or bool."""
        return _PYTHON_TYPES[self.type][0]

    def problem(self, value: Any) -> str | None:
        """What is wrong with a user's value, as one line that begins with the name. None: nothing is wrong."""
        kind, words = _PYTHON_TYPES[self.type]
        if value is None:
            if self.required:
                return f"{self.name} is missing; give it a value"
            told = f"{self.name} may not be null; leave it out for {self.default!r}"
            return None if self.default is None else told
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            return f"{self.name} must be {words}, not {value!r}"
        if kind is float and not math.isfinite(value):
            return f"{self.name} must be a finite number, not {value!r}"
        if self.choices and value not in self.choices:
            return f"{self.name} {value!r} is not known; choose from {', '.join(map(str, self.choices))}"
        low, high = self.bounds
        if kind in (int, float) and not low <= value <= high:
            limit = f"at least {low:g}" if value < low else f"at most {high:g}"
            return f"{self.name} must be {limit}, not {value!r}"
        return None


@dataclass(frozen=True)
class Table:
    """A named table and its columns."""

    name: str
    description: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def arrow_schema(self):
        """The pyarrow schema. Each field's metadata has unit and description; the table's has name and version."""
        import pyarrow as pa

        fields = [
            pa.field(
                column.name,
                _ARROW_TYPES[column.type](pa),
                metadata={"unit": column.unit, "description": column.description},
            )
            for column in self.columns
        ]
        metadata = {"table": self.name, "description": self.description, "version": str(SCHEMA_VERSION)}
        return pa.schema(fields, metadata=metadata)


def to_arrow(table: Table, rows: Iterable[Mapping[str, Any]]):
    """Build a pyarrow table from dict rows. A missing key becomes null; an unknown key raises KeyError."""
    import pyarrow as pa

    rows = list(rows)
    unknown = {key for row in rows for key in row} - set(table.names)
    if unknown:
        raise KeyError(f"table {table.name} has no column {sorted(unknown)}")
    columns = {name: [row.get(name) for row in rows] for name in table.names}
    return pa.table(columns, schema=table.arrow_schema())


def write_table(table: Table, rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write dict rows as Parquet (zstd), atomically."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(to_arrow(table, rows), temporary, compression="zstd")


def read_table(table: Table, path: str | Path) -> list[dict[str, Any]]:
    """Read a Parquet file of `table` as dict rows. Raises UserError where it is missing or is not that table."""
    import pyarrow.parquet as pq

    with reading(path, "a whole Parquet file"):
        # pq.read_table would load pyarrow's data sets, which takes a third of a second
        read = pq.ParquetFile(path).read()
    missing = set(table.names) - set(read.column_names)
    if missing:
        raise UserError(
            f"{path} lacks the columns {sorted(missing)} of the table {table.name}; make it again"
        )
    return read.to_pylist()


def data_dictionary(tables: Iterable[Table]) -> str:
    """Markdown: one section per table, one line per column (type, unit, description)."""
    lines = ["# Data dictionary", "", "Generated from `workflow/jouleline/schemas`; do not edit.", ""]
    for table in tables:
        lines += [f"## {table.name}", "", table.description, ""]
        lines += ["| column | type | unit | description |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {c.unit} | {c.description} |" for c in table.columns]
        lines.append("")
    return "\n".join(lines)
