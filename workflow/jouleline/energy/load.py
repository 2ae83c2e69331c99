"""Raw files become one in-memory `Measurement`: from a finished run or from a measurement directory."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jouleline.errors import UserError
from jouleline.files import one_line, read_json, refused
from jouleline.measure.raw.markers import DEVICE, END, START, STEP
from jouleline.measure.raw.merge import read_meta, read_node
from jouleline.measure.raw.samples import read_parquet
from jouleline.schemas.samples import SAMPLES


@dataclass
class Series:
    """Readings of one device. `fast` and `slow` have one float64 array per column of the samples table (NaN is
    unknown), in order of `t_us` (CLOCK_MONOTONIC of the node, us)."""

    info: dict[str, Any]
    fast: dict[str, np.ndarray]
    slow: dict[str, np.ndarray]


@dataclass
class Regions:
    """Marked regions of one rank, in order of their start: arrays of equal length.

    `t_us` are the starts, `end_us` the ends (NaN where the end is missing). `steps` counts the steps marked inside.
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
    """What one node left: readings of its devices, regions of its ranks, its meta (None: nothing) and its events."""

    number: int
    meta: dict[str, Any] | None
    events: list[dict[str, Any]]
    devices: list[Series]
    ranks: list[Regions]
    # rank -> UUID, as the rank itself reported it (in its marker file, or through the agent in run.json).
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

    Raises UserError where `folder` has no measurement.
    """
    folder = Path(folder)
    try:
        if not os.path.lexists(folder / "meta.json"):
            raise UserError(
                f"{folder} is not a measurement directory (no meta.json); give the --out of `measure`"
            )
        meta = read_meta(folder)
        if not isinstance(meta, dict) or "devices" not in meta:
            raise UserError(f"{folder / 'meta.json'} is torn or not of a measurement; measure again")
        _check_file(folder / "samples.parquet")
        samples, markers, node = read_node(folder)
        return Measurement(None, [_node(0, node, samples, markers, {})])
    except _BROKEN as error:
        raise _broken(error, f"{folder} cannot be read as a measurement") from error


# The errors of files that are not as they were written.
_BROKEN = (OSError, pa.ArrowException, AttributeError, KeyError, TypeError, ValueError)


# The fields that are read of events with details.
_DETAILS = {
    "idle": ("start_us", "end_us"),
    "processes": ("device", "pids"),
    "period_doubled": ("t_us", "lane", "devices", "period_ms"),
    "call_stuck": ("t_us", "lane", "device", "after_ms"),
    "call_failed": ("call",),
    "call_recovered": ("call",),
    "foreign_load": ("start_us", "end_us"),
}


class Unreadable(UserError):
    """Files that are there but that the operating system refuses. Nothing is known about their content."""


def _broken(error: Exception, what: str) -> UserError:
    """The error to raise for files that cannot be used: they are refused, or they are not as they were written."""
    if isinstance(error, OSError) and refused(error):
        return Unreadable(f"{what}: {one_line(error)}")
    said = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{what}: {said}; measure it again")


def _check_file(path: Path) -> None:
    """Raise ValueError for a file of samples with other columns. Other errors in it are found later."""
    with contextlib.suppress(OSError, pa.ArrowInvalid):
        _check_columns(pq.read_schema(path).names)


def _check_columns(names: list[str]) -> None:
    if missing := [name for name in SAMPLES.names if name not in names]:
        raise ValueError(f"samples.parquet has no column {missing[0]}, of {len(missing)} that it should have")


def _check_node(meta: dict[str, Any] | None, events: list[dict[str, Any]]) -> None:
    """Raise ValueError for a meta or events that no sidecar can have written."""
    infos = (meta or {}).get("devices") or []
    if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
        raise ValueError("`devices` of the meta is not a list of objects")
    for info in infos:
        for name, kind in (("index", int), ("uuid", str), ("kind", str)):
            if not isinstance(info.get(name), kind):
                raise ValueError(f"a device of the meta has no {name}")
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
            raise ValueError(f"an event is no object with a kind: {str(event)[:60]}")
        if missing := [name for name in _DETAILS.get(event["kind"], ()) if name not in event]:
            raise ValueError(f"an event {event['kind']} has no {missing[0]}")


def load_run(folder: str | Path) -> Measurement:
    """Load a finished run: run.json, samples.parquet, markers.parquet. Raises UserError on a missing file."""
    folder = Path(folder)
    run = read_json(folder / "run.json")
    try:
        samples, markers = (read_parquet(folder / name) for name in ("samples.parquet", "markers.parquet"))
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
    except _BROKEN as error:
        raise _broken(error, f"{folder} cannot be read as a run") from error
    expected = (run.get("training") or {}).get("world_size")
    return Measurement(run.get("run_id"), nodes, expected)


def _node(
    number: int, node: dict[str, Any], samples: pa.Table, markers: pa.Table, pairs: dict[int, str | None]
) -> Node:
    meta, events = node.get("meta"), node.get("events") or []
    _check_node(meta, events)
    _check_columns(samples.column_names)
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
    # Where no environment variable names a MIG slice, CUDA writes it as GPU-...: only the digits count.
    known = {_digits(uuid): uuid for info in infos for uuid in (info["uuid"], *(info.get("mig") or []))}
    reported = {rank: known.get(_digits(uuid), uuid) for rank, uuid in reported.items()}
    return Node(number, meta, events, _series(infos, samples), ranks, reported, pids)


def _digits(uuid: str) -> str:
    """A UUID without its prefix."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-")


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
    """Pair the starts and ends of one rank. An end without its start is ignored."""
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
