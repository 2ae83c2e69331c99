"""Read the markers of the ranks: raw files become a table. Torn and foreign records are left out and counted."""

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from jouleline.measure.raw.arrow import array, strings
from jouleline.measure.raw.markers import (
    BODY,
    DEVICE,
    END,
    MAGIC,
    NODE_RANK,
    RECORD_BYTES,
    START,
    STEP,
    VERSION,
    device_uuid,
)
from jouleline.schemas.samples import MARKERS

_RECORD = np.dtype(
    [
        ("magic", "<u2"),
        ("version", "u1"),
        ("kind", "u1"),
        ("seq", "<u4"),
        ("t_ns", "<i8"),
        ("id", "<u4"),
        ("parent", "<i4"),
        ("rank", "<i4"),
        ("name", "S32"),
        ("crc", "<u4"),
    ]
)


def read_file(path: Path) -> tuple[np.ndarray, int]:
    """Records of one file, and the number of broken ones (bad check sum, or an end shorter than a record)."""
    data = path.read_bytes()
    count = len(data) // RECORD_BYTES
    records = np.frombuffer(data, _RECORD, count)
    body, view = BODY.size, memoryview(data)
    starts = range(0, count * RECORD_BYTES, RECORD_BYTES)
    sums = np.fromiter((zlib.crc32(view[start : start + body]) for start in starts), np.uint32, count)
    good = (records["crc"] == sums) & (records["magic"] == MAGIC) & (records["version"] == VERSION)
    return records[good], int(count - good.sum()) + bool(len(data) % RECORD_BYTES)


# Added to the rank of a process that is in a region while another process of that rank is in the same region.
ANOTHER = 1_000_000


def _ranks(files: list[np.ndarray]) -> list[int]:
    """The rank of each file's process.

    A process that begins after another of its rank has ended is that rank, started again. A child of a rank that marks
    its own regions belongs to the rank.
    """
    known: dict[int, list[dict[bytes, list[tuple[int, int]]]]] = {}
    ranks = []
    for records in sorted(files, key=lambda one: int(one["t_ns"].min(initial=np.iinfo(np.int64).max))):
        rank, mine = int(records["rank"].max(initial=NODE_RANK)), _spans(records)
        others = known.setdefault(rank, [])
        free = next((k for k, other in enumerate(others) if not _meet(mine, other)), len(others))
        others += [{}] * (free == len(others))
        for name, span in mine.items():
            others[free].setdefault(name, []).append(span)
        ranks.append((id(records), rank + free * ANOTHER))
    found = dict(ranks)
    return [found[id(records)] for records in files]


def _spans(records: np.ndarray) -> dict[bytes, tuple[int, int]]:
    """The spans (ns) in which a process was in regions of each name. An open span ends at the last mark."""
    spans = {}
    for name in np.unique(records["name"][records["kind"] == START]).tolist():
        mine = records[records["name"] == name]
        starts, ends = (mine["t_ns"][mine["kind"] == kind] for kind in (START, END))
        last_ns = ends.max() if len(ends) >= len(starts) else records["t_ns"].max()
        spans[name] = int(starts.min()), int(last_ns)
    return spans


def _meet(mine: dict[bytes, tuple[int, int]], others: dict[bytes, list[tuple[int, int]]]) -> bool:
    """Whether two of the spans have the same name and overlap."""
    return any(
        begin <= other_end and other_begin <= end
        for name, (begin, end) in mine.items()
        for other_begin, other_end in others.get(name, ())
    )


def read_markers(folder: Path, node: int = 0) -> tuple[pa.Table, int]:
    """The marks of every rank-*.bin in `folder` as the markers table, and the number of broken or lost records.

    Two processes of one rank that were in a region of the same name at once count as two: the rank, and rank + ANOTHER.
    """
    schema = MARKERS.arrow_schema()
    tables, broken = [], 0
    files = [read_file(path) for path in sorted(folder.glob("rank-*.bin"))]
    ranks = _ranks([records for records, _ in files])
    for number, ((records, torn), rank) in enumerate(zip(files, ranks)):
        broken += torn
        # Numbers count from 0. A jump is a mark that was never written or is torn.
        broken += max(int(records["seq"][-1]) + 1 - len(records) - torn, 0) if len(records) else 0
        names = np.char.decode(records["name"], "utf-8", "replace").tolist()
        for index in np.flatnonzero(records["kind"] == DEVICE):
            names[index] = device_uuid(int(records["parent"][index]), names[index])
        columns = {name: records[name] for name in ("seq", "kind", "t_ns", "id", "parent")}
        # Ids count from 1 in every file. Two files of one rank (a restart) must not have the same ids.
        for name in ("id", "parent"):
            own = np.isin(records["kind"], (START, END)) | ((name == "parent") & (records["kind"] == STEP))
            columns[name] = columns[name].astype(np.int64) + (number << 32) * (own & (columns[name] > 0))
        columns |= {"node": np.full(len(records), node), "rank": np.full(len(records), rank), "name": names}
        arrays = [
            strings(columns[item.name]) if item.type == pa.string() else array(columns[item.name], item.type)
            for item in schema
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=schema))
    return (pa.concat_tables(tables) if tables else schema.empty_table()), broken
