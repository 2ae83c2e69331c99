"""The thread that writes what the lanes have read to closed segments."""

import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jouleline.errors import UserError
from jouleline.files import atomic_path
from jouleline.measure.raw.samples import PARTS, rows_to_table, thin

FLUSH_S = 4.0
# How soon an event is on disk: nobody reads them while measuring, but a kill loses those that wait.
EVENTS_S = 1.0
# Rows kept in memory while the disk is full; above it every second fast row is dropped.
PENDING_ROWS = 200_000


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
