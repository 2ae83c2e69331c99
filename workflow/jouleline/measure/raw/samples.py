"""Samples on disk: closed segments while measuring, one compact file at the end.

A Parquet file without its footer is unreadable, so each segment is written under a temporary name, flushed to
disk and renamed: after a SIGKILL every file there is is whole and at most one flush is lost.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jouleline.errors import UserError
from jouleline.files import atomic_path
from jouleline.schemas.samples import SAMPLES

FLUSH_S = 4.0
# How soon an event is on disk: nobody reads them while measuring, but a kill loses those that wait.
EVENTS_S = 1.0
# Rows kept in memory while the disk is full; above it every second fast row is dropped.
PENDING_ROWS = 200_000
# Rows that are sorted together: three minutes of eight GPUs, 40 MB.
CHUNK_ROWS = 80_000
PARTS = "samples"
COMPACT = "samples.parquet"
SCHEMA = SAMPLES.arrow_schema()
_EMPTY = pa.Table.from_batches([], SCHEMA)  # SCHEMA.empty_table() imports pandas too, see `_array`
SORT = ("node", "device", "lane", "t_us")


def _array(values, kind: pa.DataType) -> pa.Array:
    """Numbers (nan and None are null) to an Arrow array. From buffers, because pa.array imports pandas to look at
    its argument: half a second and 40 MB in a process that must stay small. Exact for integers below 2^53."""
    numbers = np.asarray(values)
    if numbers.dtype.kind != "i":
        numbers = np.asarray(numbers, dtype=np.float64)
        known = np.isfinite(numbers)
        if not known.all():
            data = np.where(known, numbers, 0).astype(kind.to_pandas_dtype())
            valid = np.packbits(known, bitorder="little")
            return pa.Array.from_buffers(kind, len(data), [pa.py_buffer(valid), pa.py_buffer(data)])
    data = np.ascontiguousarray(numbers, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(data), [None, pa.py_buffer(data)])


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
            _array(columns[item.name], item.type) if item.name in columns else pa.nulls(count, item.type)
            for item in SCHEMA
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return pa.concat_tables(tables) if tables else _EMPTY


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column without nulls as numpy, from its buffers (see `_array`)."""
    kind = column.type.to_pandas_dtype()
    pieces = [
        np.frombuffer(c.buffers()[1], kind)[c.offset : c.offset + len(c)] for c in column.chunks if len(c)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, kind)


def sort(table: pa.Table) -> pa.Table:
    """Rows in order of node, device, lane and time: neighbours then differ little, which is what
    compresses."""
    keys = [_numbers(table[name]) for name in reversed(SORT)]
    return table.take(_array(np.lexsort(keys), pa.int64())) if table.num_rows else table


def thin(table: pa.Table) -> pa.Table:
    """Every second reading of each device's fast lane, and all of the slow lane, in their order."""
    device, lane = (_numbers(table[name]) for name in ("device", "lane"))
    order = np.argsort(device * 2 + lane, kind="stable")
    group = (device * 2 + lane)[order]
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - np.searchsorted(group, group)
    return table.take(_array(np.flatnonzero((number % 2 == 0) | (lane == 1)), pa.int64()))


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


def read_samples(folder: Path) -> pa.Table:
    """The samples of a measurement directory: the compact file, or else the segments that there are.

    An empty table when there is neither. Segments are whole by construction; one that is not raises
    ArrowInvalid.
    """
    compact = folder / COMPACT
    if compact.exists():
        return pq.ParquetFile(compact).read(use_threads=False)
    parts = sorted((folder / PARTS).glob("part-*.parquet"))
    if not parts:
        return _EMPTY
    return pa.concat_tables([pq.ParquetFile(part).read(use_threads=False) for part in parts])


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
            call_us, late_us = (_numbers(table[name]) for name in ("call_us", "late_us"))
            fast.append(np.stack((call_us, late_us))[:, _numbers(table["lane"]) == 0])
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
        waiting.append(pq.ParquetFile(part).read(use_threads=False))
        if sum(table.num_rows for table in waiting) >= CHUNK_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    yield pa.concat_tables([_EMPTY, *waiting, *pending])


class SegmentWriter(threading.Thread):
    """Flushes the lanes every few seconds. On a full disk rows wait in memory and are thinned, and it is
    said."""

    def __init__(self, folder: Path, take, events):
        super().__init__(name="segments", daemon=True)
        self.folder = folder / PARTS
        self.folder.mkdir(parents=True, exist_ok=True)
        # Segments of an earlier measurement must not be read as this one's.
        for old in self.folder.glob("part-*.parquet"):
            old.unlink()
        self.take = take
        self.events = events
        self.number = 0
        self.rows_written = 0
        self.pending: list[pa.Table] = []
        self.failing = False
        self._end = threading.Event()

    def run(self) -> None:
        due = time.monotonic() + FLUSH_S
        while not self._end.wait(min(max(due - time.monotonic(), 0), EVENTS_S)):
            if time.monotonic() >= due:
                self.flush()
                due = max(due + FLUSH_S, time.monotonic())
            self.events.write()

    def flush(self) -> None:
        """Write what the lanes have as one segment, and the events. Never raises: on a disk that cannot take it the
        rows wait."""
        try:
            table = rows_to_table(self.take())
            if table.num_rows:
                self.pending.append(table)
            if self.pending:
                self._write(pa.concat_tables(self.pending))
        except Exception as error:
            # Whatever it is: a writer that ends would take all that comes after it along.
            self.events.add("flush_failed", message=repr(error))
        self.events.write()

    def _write(self, table: pa.Table) -> None:
        try:
            with atomic_path(self.folder / f"part-{self.number:06d}.parquet") as temporary:
                # Fast rather than small: it is read once, to be compacted.
                pq.write_table(
                    table, temporary, compression="snappy", use_dictionary=False, write_statistics=False
                )
        except (OSError, UserError) as error:
            self._keep(table, error)
            return
        self.number += 1
        self.rows_written += table.num_rows
        self.pending = []
        if self.failing:
            self.failing = False
            self.events.add("disk_recovered")

    def _keep(self, table: pa.Table, error: Exception) -> None:
        if not self.failing:
            self.failing = True
            self.events.add("disk_failed", message=str(error))
        if table.num_rows > PENDING_ROWS:
            table = thin(table)
            self.events.add("samples_thinned", rows=table.num_rows)
        self.pending = [table]

    def finish(self) -> None:
        """End the thread and write the last segment."""
        self._end.set()
        self.join()
        self.flush()
