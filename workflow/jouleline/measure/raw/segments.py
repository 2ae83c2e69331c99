"""Segments: the readings of the lanes on disk during a measurement, as compressed JSON numbers.

A process beside a trainer must stay small, and pyarrow and numpy would be two thirds of its memory. So no library of
tables is used. Each segment is written under a temporary name, flushed to disk and renamed. After a SIGKILL every file
is whole, and at most one flush is lost.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "samples"
# Encoding a line of this many rows takes a fraction of a millisecond. No lane can read meanwhile.
LINE_ROWS = 128
# The slow lane is never thinned.
_FAST = 0


class Batch(NamedTuple):
    """Rows of one lane as it keeps them: (device, before_ns, after_ns, deadline_ns, values). `columns` names the
    values."""

    lane: int
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def encode(batches: Iterable[Batch]) -> bytes:
    """The batches as a segment. Concatenated segments are a segment."""
    # Level 1 gives a fifth of the size for little time. Segments are soon compacted.
    return gzip.compress("".join(_lines(batches)).encode(), 1, mtime=0)


def _lines(batches: Iterable[Batch]) -> Iterator[str]:
    for lane, columns, rows in batches:
        if any(len(row) != 5 or len(row[-1]) != len(columns) for row in rows):
            raise ValueError(f"a reading of lane {lane} is not of {', '.join(columns)}")
        for begin in range(0, len(rows), LINE_ROWS):
            yield json.dumps([lane, columns, rows[begin : begin + LINE_ROWS]], separators=(",", ":")) + "\n"


def decode(segment: bytes) -> Iterator[Batch]:
    """The batches of a segment, of at most LINE_ROWS rows each. Raises ValueError where it is torn."""
    try:
        for line in gzip.decompress(segment).splitlines():
            yield Batch(*json.loads(line))
    except (EOFError, gzip.BadGzipFile, TypeError, zlib.error) as error:
        raise ValueError(f"no whole segment: {error}") from error


def paths(folder: Path) -> list[Path]:
    """The segments of a measurement directory, in the order written."""
    return sorted((folder / FOLDER).glob("part-*.json.gz"))


def path_of(folder: Path, number: int) -> Path:
    """The path of segment `number` of a measurement directory."""
    return folder / FOLDER / f"part-{number:06d}.json.gz"


def read(path: Path) -> list[Batch]:
    """The batches of a file. Raises OSError where the system refuses it, ValueError where it is torn."""
    try:
        return list(decode(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def count(batches: Iterable[Batch]) -> int:
    """The number of rows of the batches."""
    return sum(len(batch.rows) for batch in batches)


def join(batches: Iterable[Batch]) -> list[Batch]:
    """The same rows with one batch per lane, in their order."""
    rows: dict[tuple, list] = {}
    for lane, columns, more in batches:
        rows.setdefault((lane, tuple(columns)), []).extend(more)
    return [Batch(*lane, together) for lane, together in rows.items()]


def thin(batches: Iterable[Batch]) -> list[Batch]:
    """Every second reading of each device's fast lane, and the whole slow lane, in their order."""
    return [
        batch if batch.lane != _FAST else batch._replace(rows=list(_every_second(batch.rows)))
        for batch in join(batches)
    ]


def _every_second(rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    skip: set[int] = set()
    for row in rows:
        if row[0] not in skip:
            yield row
        skip ^= {row[0]}
