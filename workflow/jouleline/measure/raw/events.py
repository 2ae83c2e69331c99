"""The event log of a measurement: one JSON object per line, each a thing that happened while measuring."""

import json
import threading
import time
from pathlib import Path

NAME = "events.jsonl"
# A fault that repeats must not fill the disk: so many lines of one kind are written, then it is only counted.
MOST_OF_A_KIND = 200


def utc(t_us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    seconds, rest = divmod(t_us, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:03d}Z"


class EventLog:
    """Keeps events {"t_us", "utc_us", "kind", ...} until `write` appends them to the file: those who sample must not
    wait for a disk. While it is full they go on waiting in memory."""

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.waiting: list[bytes] = []
        self.counts: dict[str, int] = {}
        self.lock, self.writing = threading.Lock(), threading.Lock()

    def add(self, kind: str, **details) -> None:
        """Log one event, stamped with CLOCK_MONOTONIC (t_us) and the wall clock (utc_us)."""
        with self.lock:
            count = self.counts[kind] = self.counts.get(kind, 0) + 1
            if count > MOST_OF_A_KIND:
                return
            stamps = {"t_us": time.monotonic_ns() // 1000, "utc_us": time.time_ns() // 1000}
            self.waiting.append((json.dumps(stamps | {"kind": kind} | details) + "\n").encode())

    def write(self) -> None:
        """Append what waits to the file. Never raises; call it now and then."""
        with self.writing:
            count = len(self.waiting)
            data = b"".join(self.waiting[:count])
            if not data:
                return
            try:
                with open(self.path, "ab", buffering=0) as handle:
                    written = handle.write(data)
            except OSError:
                return
            # A disk that is nearly full takes a part: the rest waits, and joins it to a whole line.
            self.waiting[:count] = [data[written:]] if written < len(data) else []


def read_events(folder: Path) -> list[dict]:
    """The events of a measurement directory, oldest first; a torn last line is left out. Raises OSError for a log that
    is there and cannot be read."""
    events = []
    try:
        lines = (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
