"""Merge the measurement directories of the nodes into the two raw files of a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jouleline.files import atomic_path, refused
from jouleline.measure.raw.arrow import array, numbers
from jouleline.measure.raw.events import read_events
from jouleline.measure.raw.marker_reader import ANOTHER, read_markers
from jouleline.measure.raw.samples import read_samples, sort, write_compact


def read_meta(folder: Path) -> dict[str, Any] | None:
    """meta.json of a measurement directory. None when the sidecar did not get so far, or the file is torn. Raises
    OSError for a file that is there but cannot be read."""
    try:
        return json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def node_samples(folder: Path) -> tuple[pa.Table, list[dict]]:
    """Samples of one node, and the events that reading them adds: a torn segment, or the scratch of a sidecar that died
    before it copied. Raises OSError for a file that is there but cannot be read."""
    meta = read_meta(folder) or {}
    scratch = Path(meta["scratch"]) if meta.get("scratch") else None
    source = folder
    if scratch and not (folder / "samples.parquet").exists():
        source = scratch
    try:
        return read_samples(source), []
    except (OSError, ValueError) as error:
        if refused(error):
            raise
        empty = read_samples(Path("/nonexistent"))
        return empty, [{"kind": "samples_unreadable", "message": str(error)}]


def read_node(folder: str | Path, node: int = 0) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """(samples, markers, {"meta", "events"}) of one measurement directory, with `node` filled in."""
    folder = Path(folder)
    samples, events = node_samples(folder)
    position = samples.schema.get_field_index("node")
    filled = array(np.full(samples.num_rows, node), pa.int32())
    samples = samples.set_column(position, samples.schema.field("node"), filled)
    markers, broken = read_markers(folder / "markers", node)
    if broken:
        events.append({"kind": "markers_broken", "count": broken})
    ranks = numbers(markers["rank"])
    if (twice := np.unique(ranks[ranks >= ANOTHER] % ANOTHER)).size:
        events.append({"kind": "rank_twice", "ranks": twice.tolist()})
    return samples, markers, {"meta": read_meta(folder), "events": read_events(folder) + events}


def merge_nodes(node_dirs: Sequence[str | Path], out_dir: str | Path) -> list[dict[str, Any]]:
    """Write samples.parquet and markers.parquet of a run from its nodes' directories (node 0 first).

    Returns one {"meta": dict or None, "events": list} per node for run.json. A node without data adds no rows and a
    null meta; the verdict then finds its devices missing. Raises UserError when `out_dir` cannot be written.
    """
    samples, markers, nodes = zip(*(read_node(folder, node) for node, folder in enumerate(node_dirs)))
    out = Path(out_dir)
    write_compact(sort(pa.concat_tables(samples)), out / "samples.parquet")
    with atomic_path(out / "markers.parquet") as temporary:
        pq.write_table(pa.concat_tables(markers), temporary, compression="zstd")
    return list(nodes)
