"""What is kept of a run: its record (run.json or run.failed.json), and the measurements of all its nodes together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from jouleline.measure.node.files import node_folder
from jouleline.measure.node.outcome import Outcome
from jouleline.measure.node.place import Place
from jouleline.measure.raw.merge import merge_nodes

_WINDOW_END = 2


@dataclass
class RunRequest:
    """What to measure and where. `row` and `protocol` are complete."""

    run_id: str
    row: dict[str, Any]
    row_key: str
    protocol: dict[str, Any]
    code_digest: str
    dataset: Path
    out_dir: Path
    place: Place


def merge(
    raw: Path, merged: Path, outcome: Outcome, states: Sequence[Mapping[str, Any]]
) -> tuple[Outcome, list[dict[str, Any]]]:
    """Merge the measurements of the nodes in `merged`. Returns what each node measured, node 0 first.

    The outcome is a failure where a sidecar died before the end of the measured window.
    """
    measured = merge_nodes([node_folder(raw, state["node"]) for state in states], merged)
    for state in states:
        if state.get("sidecar_died") and outcome.status == "ok" and not covers_window(merged, state["node"]):
            outcome = outcome.worse("failed", "sidecar_died", f"the sidecar of node {state['node']} died")
    return outcome, measured


def covers_window(merged: Path, node: int) -> bool:
    """Whether the samples of `node` go beyond the end of its measured window."""
    markers = pq.read_table(merged / "markers.parquet").filter(pc.field("node") == node)
    samples = pq.read_table(merged / "samples.parquet", columns=["node", "t_us"]).filter(
        pc.field("node") == node
    )
    starts = markers.filter((pc.field("kind") == 1) & (pc.field("name") == "window"))
    ends = markers.filter(
        (pc.field("kind") == _WINDOW_END) & pc.field("id").isin(starts["id"].combine_chunks())
    )
    if not (starts.num_rows and ends.num_rows and samples.num_rows):
        return False
    return pc.max(samples["t_us"]).as_py() * 1000 > pc.max(ends["t_ns"]).as_py()


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def record(
    request: RunRequest,
    outcome: Outcome,
    states: Sequence[Mapping[str, Any]],
    measured: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
    started: float,
    wall_s: float,
    times_s: Mapping[str, float],
) -> dict[str, Any]:
    """The content of run.json. `started` is in seconds since the epoch. `times_s` says how long the agent's own steps
    took. `measured` is empty where nothing could be merged."""
    training = outcome.ranks[0].get("training") if outcome.ranks else None
    if training:
        training = {**training, "startup_s": {**times_s, **training["startup_s"]}}
    return {
        "schema": 1,
        "run_id": request.run_id,
        "row": request.row,
        "row_key": request.row_key,
        "protocol": request.protocol,
        "code_digest": request.code_digest,
        "status": outcome.status,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "started_utc": _utc(started),
        "ended_utc": _utc(time.time()),
        "wall_s": round(wall_s, 3),
        "environment": dict(environment),
        "nodes": [_node(state, measured) for state in states],
        "training": training,
    }


def _node(state: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = measured[state["node"]] if measured else {"meta": None, "events": []}
    names = ("rank", "device_uuid", "cpus", "foreign_cores")
    return {
        "node": state["node"],
        "host": state["host"],
        "cpus": state.get("cpus"),
        "exit_codes": state.get("exit_codes", []),
        "devices": (found["meta"] or {}).get("devices", []),
        "sidecar_exit": state.get("sidecar_exit"),
        "cooldown": state.get("cooldown"),
        **found,
        "ranks": [{name: rank.get(name) for name in names} for rank in state.get("ranks", [])],
    }
