"""Samples on disk: closed segments while measuring, one compact file at the end.

A Parquet file without its footer is unreadable, so each segment is written under a temporary name, flushed to
disk and renamed: after a SIGKILL every file there is is whole and at most one flush is lost.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jouleline.files import atomic_path
from jouleline.measure.raw.arrow import array, numbers, pick
from jouleline.schemas.samples import SAMPLES

# Rows that are sorted together: 50 s of eight GPUs, 20 MB. Larger groups save little: 4.4 instead of 4.6 bytes a row.
CHUNK_ROWS = 20_000
PARTS = "samples"
COMPACT = "samples.parquet"
SCHEMA = SAMPLES.arrow_schema()
_EMPTY = pa.Table.from_batches([], SCHEMA)  # SCHEMA.empty_table() imports pandas, see `arrow`
SORT = ("node", "device", "lane", "t_us")


def rows_to_table(batches, node: int = 0) -> pa.Table:
    """Arrow table of the samples schema from (LaneSpec, rows) pairs as the lanes keep them."""
    tables = []
    for spec, rows in batches:
        device, *clock, values = zip(*rows)
        before_ns, after_ns, deadline_ns = np.array(clock, dtype=np.int64)
        count = len(rows)
        columns = {
            "node": np.full(count, node),
            "device": device,
            "lane": np.full(count, spec.lane),
            "t_us": before_ns // 1000,
            "call_us": (after_ns - before_ns) // 1000,
            "late_us": np.maximum(before_ns - deadline_ns, 0) // 1000,
            **dict(zip(spec.columns, np.array(values, dtype=np.float64).T)),
        }
        arrays = [
            array(columns[item.name], item.type) if item.name in columns else pa.nulls(count, item.type)
            for item in SCHEMA
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return pa.concat_tables(tables) if tables else _EMPTY


def sort(table: pa.Table) -> pa.Table:
    """Rows in order of node, device, lane and time: neighbours then differ little, which is what
    compresses."""
    return pick(table, np.lexsort([numbers(table[name]) for name in reversed(SORT)]))


def thin(table: pa.Table) -> pa.Table:
    """Every second reading of each device's fast lane, and all of the slow lane, in their order."""
    device, lane = (numbers(table[name]) for name in ("device", "lane"))
    order = np.argsort(device * 2 + lane, kind="stable")
    group = (device * 2 + lane)[order]
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - np.searchsorted(group, group)
    return pick(table, np.flatnonzero((number % 2 == 0) | (lane == 1)))


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
    # Opened here first: pyarrow's own error for a folder does not say what the system said.
    with open(path, "rb"):
        pass
    return pq.ParquetFile(path).read(use_threads=False)


def read_samples(folder: Path) -> pa.Table:
    """The samples of a measurement directory: the compact file, or else the segments that there are.

    An empty table when there is neither. Segments are whole by construction; one that is not raises
    ArrowInvalid.
    """
    compact = folder / COMPACT
    if compact.exists():
        return read_parquet(compact)
    parts = sorted((folder / PARTS).glob("part-*.parquet"))
    if not parts:
        return _EMPTY
    return pa.concat_tables([read_parquet(part) for part in parts])


def compact(folder: Path, target: Path, pending: Sequence[pa.Table] = ()) -> dict[str, float]:
    """Merge the segments of `folder` and what is still `pending` into one file in `target`; the segments go only when
    the row counts agree (else OSError). Returns `rows`, and the usual length and lateness of a call in the fast lane
    (medians, us).

    The file is sorted within row groups of some minutes, so that a day of samples takes no more memory than those.
    """
    parts = sorted((folder / PARTS).glob("part-*.parquet"))
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
    # A folder that is gone, or holds files that are not ours, is no reason to doubt what was written.
    with contextlib.suppress(OSError):
        (folder / PARTS).rmdir()
    calls = np.concatenate(fast, axis=1)
    names = ("call_us_median", "late_us_median") if calls.size else ()
    return {"rows": rows, **{name: float(np.median(values)) for name, values in zip(names, calls)}}


def _in_chunks(parts: Sequence[Path], pending: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """The segments in order, and what is pending, joined to tables of about CHUNK_ROWS rows; at least one."""
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(read_parquet(part))
        if sum(table.num_rows for table in waiting) >= CHUNK_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    yield pa.concat_tables([_EMPTY, *waiting, *pending])
