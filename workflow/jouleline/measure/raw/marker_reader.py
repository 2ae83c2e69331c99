"""Reading the markers of the ranks: raw files to a table, torn and foreign records left out and counted."""

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
    """Records of one file and the number of broken ones (bad check sum, or a tail shorter than a record)."""
    data = path.read_bytes()
    count = len(data) // RECORD_BYTES
    records = np.frombuffer(data, _RECORD, count)
    body, view = BODY.size, memoryview(data)
    starts = range(0, count * RECORD_BYTES, RECORD_BYTES)
    sums = np.fromiter((zlib.crc32(view[start : start + body]) for start in starts), np.uint32, count)
    good = (records["crc"] == sums) & (records["magic"] == MAGIC) & (records["version"] == VERSION)
    return records[good], int(count - good.sum()) + bool(len(data) % RECORD_BYTES)


def read_markers(folder: Path, node: int = 0) -> tuple[pa.Table, int]:
    """The marks of every rank-*.bin in `folder` as the markers table, and how many records were broken or
    lost."""
    schema = MARKERS.arrow_schema()
    tables, broken = [], 0
    for number, path in enumerate(sorted(folder.glob("rank-*.bin"))):
        records, torn = read_file(path)
        broken += torn
        # Numbers run from 0: a jump is a mark that was never written or is torn.
        broken += max(int(records["seq"][-1]) + 1 - len(records) - torn, 0) if len(records) else 0
        names = np.char.decode(records["name"], "utf-8", "replace").tolist()
        for index in np.flatnonzero(records["kind"] == DEVICE):
            names[index] = device_uuid(int(records["parent"][index]), names[index])
        columns = {name: records[name] for name in ("rank", "seq", "kind", "t_ns", "id", "parent")}
        # Ids count from 1 in every file: two files of one rank (a restart) must not share them.
        for name in ("id", "parent"):
            own = np.isin(records["kind"], (START, END)) | ((name == "parent") & (records["kind"] == STEP))
            columns[name] = columns[name].astype(np.int64) + (number << 32) * (own & (columns[name] > 0))
        columns |= {"node": np.full(len(records), node, np.int32), "name": names}
        arrays = [
            strings(columns[item.name]) if item.type == pa.string() else array(columns[item.name], item.type)
            for item in schema
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=schema))
    return (pa.concat_tables(tables) if tables else schema.empty_table()), broken
