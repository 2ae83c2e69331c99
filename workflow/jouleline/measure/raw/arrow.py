"""Conversions between numpy and Arrow that use buffers only.

pyarrow's own conversions (pa.array, to_numpy, take) import pandas to look at their argument, and load the library of
its kernels. This costs half a second and 60 MB in a process that must stay small. An import hook that blocks pandas
would be shorter. But pyarrow then remembers for the whole process that there is no pandas, and the agent's other
libraries may need it.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def array(values: Sequence | np.ndarray, kind: pa.DataType) -> pa.Array:
    """Numbers as an Arrow array of `kind`. nan and None become null. Exact for integers below 2^53."""
    numbers = np.asarray(values)
    if numbers.dtype.kind in "iu":
        return _build(numbers, None, kind)
    numbers = np.asarray(numbers, dtype=np.float64)
    known = np.isfinite(numbers)
    return _build(np.where(known, numbers, 0), None if known.all() else known, kind)


def strings(values: Sequence[str]) -> pa.Array:
    """Strings as an Arrow array."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as numpy. Where the column is null, the value means nothing."""
    kind = column.type.to_pandas_dtype()
    pieces = [
        np.frombuffer(c.buffers()[1], kind)[c.offset : c.offset + len(c)] for c in column.chunks if len(c)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, kind)


def pick(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The given rows (indices) of a table of numbers, in this order."""
    picked = [_pick(table[name], rows) for name in table.schema.names]
    return pa.Table.from_arrays(picked, schema=table.schema)


def _pick(column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    if column.null_count == len(column):
        return pa.nulls(len(rows), column.type)
    known = _known(column)[rows] if column.null_count else None
    return _build(numbers(column)[rows], known, column.type)


def _known(column: pa.ChunkedArray) -> np.ndarray:
    """Whether each value of a column is not null."""
    pieces = []
    for chunk in column.chunks:
        bits = chunk.buffers()[0] if chunk.null_count else None
        seen = np.ones(chunk.offset + len(chunk), bool)
        if bits is not None:
            seen = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").astype(bool)
        pieces.append(seen[chunk.offset : chunk.offset + len(chunk)])
    return np.concatenate(pieces)


def _build(values: np.ndarray, known: np.ndarray | None, kind: pa.DataType) -> pa.Array:
    valid = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    data = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(data), [valid, pa.py_buffer(data)])
