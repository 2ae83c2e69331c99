"""Raw files to one in-memory `Measurement`, from a finished run or from a measurement directory."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jouleline.errors import UserError
from jouleline.files import read_json
from jouleline.measure.collect import read_meta, read_node
from jouleline.measure.markers import DEVICE, END, START, STEP


@dataclass
class Series:
    """Readings of one device. `fast` and `slow` hold one float64 array per column of the samples table (NaN
    is unknown), in order of `t_us` (CLOCK_MONOTONIC of the node, us)."""

    info: dict[str, Any]
    fast: dict[str, np.ndarray]
    slow: dict[str, np.ndarray]


@dataclass
class Regions:
    """Marked regions of one rank, in order of their start: arrays of equal length.

    `t_us` are the starts, `end_us` the ends (NaN where the end is missing), `steps` the steps marked inside.
    """

    rank: int
    name: list[str]
    ordinal: np.ndarray
    parent: list[str | None]
    start_us: np.ndarray
    end_us: np.ndarray
    steps: np.ndarray
    step_us: np.ndarray


@dataclass
class Node:
    """What one node left: its devices' readings, its ranks' regions, its meta (None: nothing) and events."""

    number: int
    meta: dict[str, Any] | None
    events: list[dict[str, Any]]
    devices: list[Series]
    ranks: list[Regions]
    # rank -> UUID as the rank itself reported it (by its marker file, or by the agent in run.json).
    rank_devices: dict[int, str]
    # rank -> process id, as the rank reported it with its device.
    rank_pids: dict[int, int] = field(default_factory=dict)


@dataclass
class Measurement:
    """A run as measured. `expected_ranks` is None where nobody said how many there should be."""

    run_id: str | None
    nodes: list[Node]
    expected_ranks: int | None = None
    problems: list[str] = field(default_factory=list)


def load_measurement(folder: str | Path) -> Measurement:
    """Load a measurement directory as the sidecar left it (finished, or killed at any moment).

    Raises UserError when `folder` holds no measurement.
    """
    folder = Path(folder)
    if not (folder / "meta.json").exists():
        raise UserError(
            f"{folder} is not a measurement directory (no meta.json); give the --out of `measure`"
        )
    meta = read_meta(folder)
    if not isinstance(meta, dict) or "devices" not in meta:
        raise UserError(f"{folder / 'meta.json'} is torn or not of a measurement; measure again")
    samples, markers, node = read_node(folder)
    return Measurement(None, [_node(0, node, samples, markers, {})])


def load_run(folder: str | Path) -> Measurement:
    """Load a finished run: run.json, samples.parquet, markers.parquet. Raises UserError on a missing file."""
    folder = Path(folder)
    run = read_json(folder / "run.json")
    try:
        samples, markers = (
            pq.ParquetFile(folder / name).read(use_threads=False)
            for name in ("samples.parquet", "markers.parquet")
        )
        nodes = [
            _node(
                number,
                node,
                samples.filter(pc.equal(samples["node"], number)) if len(run["nodes"]) > 1 else samples,
                markers.filter(pc.equal(markers["node"], number)) if len(run["nodes"]) > 1 else markers,
                {int(pair["rank"]): pair.get("device_uuid") for pair in node.get("ranks") or []},
            )
            for number, node in enumerate(run["nodes"])
        ]
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} cannot be read as a run ({error}); measure it again") from error
    expected = (run.get("training") or {}).get("world_size")
    return Measurement(run.get("run_id"), nodes, expected)


def _node(
    number: int, node: dict[str, Any], samples: pa.Table, markers: pa.Table, pairs: dict[int, str | None]
) -> Node:
    meta = node.get("meta")
    infos = (meta or {}).get("devices") or []
    marks = {
        name: markers[name].to_numpy(zero_copy_only=False) for name in markers.column_names if name != "name"
    }
    marks["name"] = np.array(markers["name"].to_pylist(), dtype=object)
    reported = {rank: uuid for rank, uuid in pairs.items() if uuid}
    pids = {}
    for index in np.flatnonzero(marks["kind"] == DEVICE):
        rank = int(marks["rank"][index])
        reported.setdefault(rank, marks["name"][index])
        pids[rank] = int(marks["id"][index])
    ranks = [_regions(int(rank), marks) for rank in np.unique(marks["rank"])]
    return Node(number, meta, node.get("events") or [], _series(infos, samples), ranks, reported, pids)


def _series(infos: list[dict[str, Any]], samples: pa.Table) -> list[Series]:
    columns = {
        name: samples[name].to_numpy(zero_copy_only=False).astype(np.float64)
        for name in samples.column_names
        if name not in ("node", "device", "lane")
    }
    device = samples["device"].to_numpy(zero_copy_only=False)
    lane = samples["lane"].to_numpy(zero_copy_only=False)
    series = []
    for info in infos:
        lanes = []
        for number in (0, 1):
            rows = np.flatnonzero((device == info["index"]) & (lane == number))
            rows = rows[np.argsort(columns["t_us"][rows], kind="stable")]
            lanes.append({name: values[rows] for name, values in columns.items()})
        series.append(Series(info, *lanes))
    return series


def _regions(rank: int, marks: dict[str, np.ndarray]) -> Regions:
    """Pair the starts and ends of one rank; an end without its start is ignored."""
    mine = marks["rank"] == rank
    kind, t_us, identity = marks["kind"][mine], marks["t_ns"][mine] * 1e-3, marks["id"][mine]
    parent, name = marks["parent"][mine], marks["name"][mine]
    starts, ends, steps = (np.flatnonzero(kind == wanted) for wanted in (START, END, STEP))
    starts = starts[np.argsort(t_us[starts], kind="stable")]
    end_of = dict(zip(identity[ends].tolist(), t_us[ends].tolist()))
    name_of = dict(zip(identity[starts].tolist(), name[starts].tolist()))
    names = name[starts].tolist()
    seen: dict[str, int] = {}
    ordinal = []
    for label in names:
        ordinal.append(seen.get(label, 0))
        seen[label] = ordinal[-1] + 1
    start_us = t_us[starts]
    end_us = np.array([end_of.get(number, np.nan) for number in identity[starts].tolist()], dtype=np.float64)
    step_us = np.sort(t_us[steps])
    inside = np.searchsorted(step_us, end_us, "right") - np.searchsorted(step_us, start_us, "right")
    return Regions(
        rank,
        names,
        np.array(ordinal, dtype=np.int64),
        [name_of.get(number) for number in parent[starts].tolist()],
        start_us,
        end_us,
        inside,
        step_us,
    )
