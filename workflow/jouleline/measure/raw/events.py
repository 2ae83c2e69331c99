"""The event log of a measurement: one JSON object per line for each thing that happened."""

import json
import threading
import time
from pathlib import Path

NAME = "events.jsonl"
# A repeated fault must not fill the disk. So many lines of one kind are written; further ones are only counted.
MOST_OF_A_KIND = 200


def utc(t_us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, rounded to the millisecond."""
    seconds, rest = divmod(t_us, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:03d}Z"


class EventLog:
    """Keeps events {"t_us", "utc_us", "kind", ...} until `write` appends them to the file. The sampling threads must
    not wait for a disk. While the disk is full, events stay in memory."""

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.waiting: list[bytes] = []
        self.counts: dict[str, int] = {}
        self.lock, self.writing = threading.Lock(), threading.Lock()

    def add(self, kind: str, **details) -> None:
        """Log one event with the time of CLOCK_MONOTONIC (t_us) and of the wall clock (utc_us)."""
        with self.lock:
            count = self.counts[kind] = self.counts.get(kind, 0) + 1
            if count > MOST_OF_A_KIND:
                return
            stamps = {"t_us": time.monotonic_ns() // 1000, "utc_us": time.time_ns() // 1000}
            self.waiting.append((json.dumps(stamps | {"kind": kind} | details) + "\n").encode())

    def write(self) -> None:
        """Append the waiting events to the file. Never raises. Call it now and then."""
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
            # A nearly full disk takes a part. The rest waits, and later completes the line.
            self.waiting[:count] = [data[written:]] if written < len(data) else []


def read_events(folder: Path) -> list[dict]:
    """The events of a measurement directory, oldest first. A torn last line is left out. Raises OSError for a log that
    is there but cannot be read."""
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
