"""The thread that writes the readings of the lanes as closed segments."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import atomic_path
from jouleline.measure.raw import segments
from jouleline.measure.raw.events import EventLog
from jouleline.measure.raw.segments import Batch

FLUSH_S = 4.0
# How soon an event is on disk. Nobody reads events while measuring, but a kill loses those that wait.
EVENTS_S = 1.0
# Rows that are kept in memory while the disk is full. Above this, every second fast row is dropped.
PENDING_ROWS = 200_000


class SegmentWriter(threading.Thread):
    """Writes what `take` returns every few seconds. On a full disk the segments wait in memory (`pending`, with
    `pending_rows` rows). They are thinned, and an event says so."""

    def __init__(self, folder: Path, take: Callable[[], list[Batch]], events: EventLog):
        super().__init__(name="segments", daemon=True)
        self.folder = folder
        (folder / segments.FOLDER).mkdir(parents=True, exist_ok=True)
        # Segments of an earlier measurement must not be read as part of this one.
        for old in segments.paths(folder):
            old.unlink()
        self.take = take
        self.events = events
        self.number = 0
        self.rows_written = 0
        self.pending = b""
        self.pending_rows = 0
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
        """Write the readings of the lanes as one segment, and the events. Never raises: where the disk cannot take
        them, the rows wait."""
        try:
            if taken := self.take():
                self.pending += segments.encode(taken)
                self.pending_rows += segments.count(taken)
            if self.pending_rows:
                self._write()
        except Exception as error:
            # Any error is caught. A writer that ends would lose all that comes after it.
            self.events.add("flush_failed", message=repr(error))
        self.events.write()

    def _write(self) -> None:
        try:
            with atomic_path(segments.path_of(self.folder, self.number)) as temporary:
                temporary.write_bytes(self.pending)
        except (OSError, UserError) as error:
            self._keep(error)
            return
        self.number += 1
        self.rows_written += self.pending_rows
        self.pending, self.pending_rows = b"", 0
        if self.failing:
            self.failing = False
            self.events.add("disk_recovered")

    def _keep(self, error: Exception) -> None:
        if not self.failing:
            self.failing = True
            self.events.add("disk_failed", message=str(error))
        if self.pending_rows > PENDING_ROWS:
            thinned = segments.thin(segments.decode(self.pending))
            self.pending, self.pending_rows = segments.encode(thinned), segments.count(thinned)
            self.events.add("samples_thinned", rows=self.pending_rows)

    def finish(self) -> None:
        """End the thread and write the last segment."""
        self._end.set()
        self.join()
        self.flush()
