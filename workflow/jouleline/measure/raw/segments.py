"""Segments: what the lanes have read, on disk while measuring. Numbers of JSON, compressed, and no library of tables.

A process beside a trainer must stay small: pyarrow and numpy would be two thirds of its memory. Each segment is
written under a temporary name, flushed to disk and renamed: after a SIGKILL every file there is is whole and at most
one flush is lost.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "samples"
# A line of this many rows is encoded in a fraction of a millisecond, in which no lane can read.
LINE_ROWS = 128
# The slow lane is never thinned.
_FAST = 0


class Batch(NamedTuple):
    """Rows of one lane as it keeps them, (device, before_ns, after_ns, deadline_ns, values); `columns` names the
    values."""

    lane: int
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def encode(batches: Iterable[Batch]) -> bytes:
    """The batches as a segment. Segments one behind the other are a segment."""
    # Level 1: a fifth of the size for little time, and they are soon compacted.
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
    """Where segment `number` of a measurement directory goes."""
    return folder / FOLDER / f"part-{number:06d}.json.gz"


def read(path: Path) -> list[Batch]:
    """The batches of a file. Raises OSError where the system refuses it, ValueError where it is torn."""
    try:
        return list(decode(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def count(batches: Iterable[Batch]) -> int:
    """How many rows the batches have."""
    return sum(len(batch.rows) for batch in batches)


def join(batches: Iterable[Batch]) -> list[Batch]:
    """The same rows with one batch for each lane, in their order."""
    rows: dict[tuple, list] = {}
    for lane, columns, more in batches:
        rows.setdefault((lane, tuple(columns)), []).extend(more)
    return [Batch(*lane, together) for lane, together in rows.items()]


def thin(batches: Iterable[Batch]) -> list[Batch]:
    """Every second reading of each device's fast lane, and all of the slow lane, in their order."""
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
