"""Columns from and to files: Parquet and CSV as numpy arrays, whatever their types. Bad files are refused with one
line."""

import difflib
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jouleline.errors import UserError
from jouleline.files import atomic_path, reading
from jouleline.model.table.csv import NO_VALUE, read_csv
from jouleline.schemas.runs import RUNS

Columns = dict[str, np.ndarray]
# The largest number of columns that a note names.
_MOST_NAMED = 20

_TEXTS = tuple(column.name for column in RUNS.columns if column.type in {"string", "bool"})


def read_columns(path: str | Path) -> Columns:
    """The columns of a Parquet or CSV file, whatever its name. Raises UserError where it cannot be read.

    Numbers are arrays of their kind (a null as NaN). Everything else is objects (a null as None). Blanks around names
    and texts are removed, and columns without a name are left out. In a CSV file our own columns of strings and truth
    values are text, whatever they look like: "001" stays as it is.
    """
    path = Path(path)
    with reading(path, "a whole Parquet or CSV table", "give a .parquet or .csv file"):
        table = _read_parquet(path) if _is_parquet(path) else read_csv(path, _TEXTS)
    names = [name.strip(_BLANKS) for name in table.column_names]
    table = table.rename_columns(names).select([n for n, name in enumerate(names) if name])
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise UserError(f"{path} has two columns named {twice[0]!r}; rename one of them, or leave it out")
    if not table.num_rows or not table.num_columns:
        raise UserError(f"{path} has no rows; give at least one run")
    return {name: _to_numpy(table[name], f"{path}: column {name}") for name in table.column_names}


# These include invisible ones: no-break, zero width, and byte order marks.
_BLANKS = " \t\r\n\u00a0\u200b\u2060\ufeff"


def _is_parquet(path: Path) -> bool:
    """Decide by the content, because a name may be wrong or have any ending."""
    with open(path, "rb") as handle:
        return handle.read(4) == b"PAR1"


def _read_parquet(path: Path):
    from pyarrow import parquet

    # parquet.read_table would load pyarrow's data sets and pandas, which takes a third of a second
    return parquet.ParquetFile(path).read()


def _to_numpy(column, what: str) -> np.ndarray:
    """Integers and floats as such (a null as NaN), everything else as objects (a null as None)."""
    import pyarrow as pa

    column = column.combine_chunks()
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        if column.null_count:  # by hand, because pyarrow's own ways load pandas
            return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=float)
        return np.array(np.from_dlpack(column))
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if any(kind(column.type) for kind in binary):
        try:
            column = column.cast(pa.binary()).cast(pa.string())  # as some writers of Parquet keep text
        except pa.ArrowInvalid as error:
            raise UserError(f"{what} is bytes, no UTF-8 text; write it as text or leave it out") from error
    # not np.array, because lists of one length would become a second dimension
    return np.fromiter(map(_plain, column.to_pylist()), dtype=object, count=len(column))


def _plain(value):
    """A text without the blanks around it. None where the rest is a word for no value. Anything else stays as it is."""
    if type(value) is not str:
        return value
    short = value.strip(_BLANKS)
    return None if short != value and short in NO_VALUE else short


def require_apart(out: str | Path, *inputs: str | Path) -> None:
    """Raise UserError where `out` is one of the files that it is made from."""
    for one in inputs:
        if os.path.realpath(out) == os.path.realpath(one):  # Path.resolve fails at a link to itself
            raise UserError(f"--out {out} is the input {one}, which would be lost; name another file")


def write_columns(table: Columns, path: str | Path) -> None:
    """Write columns atomically, as CSV or Parquet by the ending of the name. NaN becomes null."""
    import pyarrow as pa

    arrays = {}
    for name, values in table.items():
        numbers = np.asarray(values).dtype.kind == "f"
        arrays[name] = pa.array(values, mask=~np.isfinite(values)) if numbers else pa.array(values)
    write_arrow(pa.table(arrays), path)


def write_arrow(table, path: str | Path) -> None:
    """Write a pyarrow table atomically, as CSV or Parquet by the ending of the name."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    ending = Path(path).suffix.lower()
    if ending not in {".csv", ".parquet"}:
        raise UserError(f"{path} is neither .csv nor .parquet; name one of them to write")
    try:
        with atomic_path(path) as temporary:
            if ending == ".csv":
                csv.write_csv(table, temporary)
            else:
                parquet.write_table(table, temporary, compression="zstd")
    except pa.ArrowException as error:
        raise UserError(f"{path} cannot be CSV ({error}); write .parquet instead") from error


def note_unknown(names: Iterable[str], where: str, fate: str) -> None:
    """Tell on stderr which columns no runs table has, each with the column that may be meant, and their `fate`."""
    said = []
    for name in names:
        if name not in RUNS.names:
            near = difflib.get_close_matches(name.lower(), RUNS.names, n=1, cutoff=0.8)
            said.append(f"{name} ({near[0]}?)" if near else name)
    if said:
        more = f" and {len(said) - _MOST_NAMED} more" if len(said) > _MOST_NAMED else ""
        shown = ", ".join(said[:_MOST_NAMED]) + more
        print(f"note: {where}: no columns of a runs table, {fate}: {shown}", file=sys.stderr)
