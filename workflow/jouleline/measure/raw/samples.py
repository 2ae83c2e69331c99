"""Samples as a table: the segments of a measurement, and the one compact file that they become at the end."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jouleline.files import atomic_path
from jouleline.measure.raw import segments
from jouleline.measure.raw.arrow import array, numbers, pick
from jouleline.measure.raw.segments import Batch
from jouleline.schemas.samples import SAMPLES

# Rows that are sorted together: 50 s of eight GPUs, 20 MB. Larger groups save little: 4.4 instead of 4.6 bytes a row.
CHUNK_ROWS = 20_000
COMPACT = "samples.parquet"
SCHEMA = SAMPLES.arrow_schema()
_EMPTY = pa.Table.from_batches([], SCHEMA)  # SCHEMA.empty_table() imports pandas, see `arrow`
SORT = ("node", "device", "lane", "t_us")


def rows_to_table(batches: Iterable[Batch]) -> pa.Table:
    """Arrow table of the samples schema, of node 0. Raises ValueError for rows that make no table."""
    tables = []
    for lane, names, rows in segments.join(batches):
        device, *clock, values = zip(*rows)
        before_ns, after_ns, deadline_ns = np.array(clock, dtype=np.int64)
        count = len(rows)
        columns = {
            "node": np.zeros(count, int),
            "device": device,
            "lane": np.full(count, lane),
            "t_us": before_ns // 1000,
            "call_us": (after_ns - before_ns) // 1000,
            "late_us": np.maximum(before_ns - deadline_ns, 0) // 1000,
            **dict(zip(names, np.array(values, dtype=np.float64).T)),
        }
        arrays = [
            array(columns[item.name], item.type) if item.name in columns else pa.nulls(count, item.type)
            for item in SCHEMA
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return pa.concat_tables(tables) if tables else _EMPTY


def sort(table: pa.Table) -> pa.Table:
    """Rows in order of node, device, lane and time. Neighbours then differ little, which compresses well."""
    return pick(table, np.lexsort([numbers(table[name]) for name in reversed(SORT)]))


# Differences of neighbours, then zstd: 4 to 8 bytes per row of a sorted table.
_COMPACT = {
    "compression": "zstd",
    "compression_level": 9,
    "use_dictionary": False,
    "column_encoding": dict.fromkeys(SAMPLES.names, "DELTA_BINARY_PACKED"),
    "write_statistics": False,
}


def write_compact(table: pa.Table, path: Path) -> None:
    """Write a sorted samples table in few bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=1 << 20, **_COMPACT)


def read_parquet(path: Path) -> pa.Table:
    """The whole table. Raises OSError where the system refuses the file, ArrowInvalid where it is torn."""
    # Opened here first, because pyarrow's own error for a folder does not repeat what the system said.
    with open(path, "rb"):
        pass
    return pq.ParquetFile(path).read(use_threads=False)


def read_samples(folder: Path) -> pa.Table:
    """The samples of a measurement directory: the compact file, else the segments.

    An empty table when there is neither. Files are written whole; one that is not whole raises ValueError.
    """
    compact = folder / COMPACT
    if compact.exists():
        return read_parquet(compact)
    return pa.concat_tables(
        [_EMPTY, *(rows_to_table(segments.read(part)) for part in segments.paths(folder))]
    )


def compact(folder: Path, target: Path, pending: bytes = b"") -> dict[str, float]:
    """Merge the segments of `folder` and the `pending` rows into one file in `target`.

    The segments are removed only when the row counts agree (else OSError). Returns `rows`, and the median duration and
    lateness of a call in the fast lane (us). The file is sorted within row groups of some minutes, so a day of samples
    takes no more memory than one group.
    """
    parts = segments.paths(folder)
    rows, fast = 0, [np.empty((2, 0), np.int32)]
    with (
        atomic_path(target / COMPACT) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, **_COMPACT) as writer,
    ):
        for table in _in_chunks(parts, pending):
            table = sort(table)
            writer.write_table(table)
            rows += table.num_rows
            call_us, late_us = (numbers(table[name]) for name in ("call_us", "late_us"))
            fast.append(np.stack((call_us, late_us))[:, numbers(table["lane"]) == 0])
    written = pq.ParquetFile(target / COMPACT).metadata.num_rows
    if written != rows:
        raise OSError(f"{target / COMPACT} has {written} rows, expected {rows}")
    for part in parts:
        part.unlink()
    # What was written is good even if the folder is gone or holds other files.
    with contextlib.suppress(OSError):
        (folder / segments.FOLDER).rmdir()
    calls = np.concatenate(fast, axis=1)
    names = ("call_us_median", "late_us_median") if calls.size else ()
    return {"rows": rows, **{name: float(np.median(values)) for name, values in zip(names, calls)}}


def _in_chunks(parts: Sequence[Path], pending: bytes) -> Iterator[pa.Table]:
    """The segments in order, then the pending rows, as tables of about CHUNK_ROWS rows; at least one table."""
    waiting: list[Batch] = []
    for part in parts:
        waiting += segments.read(part)
        if segments.count(waiting) >= CHUNK_ROWS:
            yield rows_to_table(waiting)
            waiting = []
    yield rows_to_table([*waiting, *segments.decode(pending)])
