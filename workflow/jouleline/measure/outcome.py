"""How a run ended, from exit codes, result files and the sidecar, and the record that is kept of it."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from jouleline.files import read_json, write_json
from jouleline.measure.collect import merge_nodes
from jouleline.measure.failures import PEER_LOST, oom_kills
from jouleline.measure.launcher import result_file

if TYPE_CHECKING:
    from jouleline.measure.agent import Agent
    from jouleline.measure.node_agent import NodeAgent

_WINDOW_END = 2
_TAIL_LINES = 15


@dataclass(frozen=True)
class Outcome:
    """status ok, oom or failed; `reason` a code, `detail` a sentence; `ranks` what this node's ranks said."""

    status: str
    reason: str | None = None
    detail: str | None = None
    ranks: list[dict[str, Any]] = field(default_factory=list)

    def worse(self, status: str, reason: str | None, detail: str | None) -> "Outcome":
        """This outcome, or the given one where it is graver (failed > oom > lost peer > ok)."""
        if _gravity(status, reason) <= _gravity(self.status, self.reason):
            return self
        return replace(self, status=status, reason=reason, detail=detail)

    @property
    def found(self) -> dict[str, Any]:
        """What the first rank learnt of its device."""
        return self.ranks[0] if self.ranks else {}


def _gravity(status: str, reason: str | None) -> int:
    """A lost peer is a consequence: of memory that ran out elsewhere, or of a failure."""
    return 1 if reason == PEER_LOST else {"ok": 0, "oom": 2, "failed": 3}[status]


def of_ranks(agent: "NodeAgent") -> Outcome:
    """The outcome of this node's ranks."""
    codes, folder = agent.ranks.exit_codes, agent.folder
    said = {
        local: read_json(result_file(folder, local)) for local in codes if result_file(folder, local).exists()
    }
    ranks = [said.get(local, {}) for local in sorted(codes)]
    if not any(codes.values()):
        return Outcome("ok", ranks=ranks)
    first = agent.place.node * agent.place.per_node
    causes = [
        _cause(first + local, code, said.get(local, {}).get("failure"), agent.kills)
        for local, code in codes.items()
        if code and local in agent.ranks.died
    ]
    # One rank out of memory makes the others fail in their next collective, whoever reports first.
    _, status, reason, detail = min(
        causes, key=lambda cause: (cause[1] != "oom", cause[2] == PEER_LOST, cause[0])
    )
    return Outcome(status, reason, detail, ranks)


def _cause(
    rank: int, code: int, failure: Mapping[str, Any] | None, kills_before: int
) -> tuple[float, str, str, str]:
    """(time, status, reason, detail) of a rank that ended with `code`; a rank that could not say when comes first."""
    if failure:
        detail = f"rank {rank} exited with {code}: {failure['detail']}"
        return failure["time_s"], failure["status"], failure["reason"], detail
    if code == -signal.SIGKILL and oom_kills() > kills_before:
        return 0.0, "oom", "out_of_memory", f"rank {rank} was killed by the kernel for memory"
    if code < 0:
        return 0.0, "failed", "rank_killed", f"rank {rank} was killed by signal {-code}"
    return 0.0, "failed", "rank_failed", f"rank {rank} exited with {code} and said nothing"


def merge(
    agent: "Agent", outcome: Outcome, states: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]
) -> int:
    """Merge the nodes' measurements and write the run's files; returns the agent's exit code."""
    order, merged = agent.order, agent.raw / "merged"
    folders = [agent.raw / f"node-{state['node']}" for state in states]
    measured = merge_nodes(folders, merged)
    for state in states:
        if state.get("sidecar_died") and outcome.status == "ok" and not covers_window(merged, state["node"]):
            outcome = outcome.worse("failed", "sidecar_died", f"the sidecar of node {state['node']} died")
    record = _record(agent, outcome, states, measured, environment)
    if outcome.status == "failed":
        return _fail(agent, outcome, record)
    for name in ("samples.parquet", "markers.parquet"):
        os.replace(merged / name, order.out_dir / name)
    write_json(order.out_dir / "run.json", record)
    (order.out_dir / "run.failed.json").unlink(missing_ok=True)
    shutil.rmtree(agent.raw, ignore_errors=True)
    print(f"jouleline: run {order.run_id} {outcome.status} in {record['wall_s']:.1f} s", file=sys.stderr)
    return 0


def covers_window(merged: Path, node: int) -> bool:
    """Whether the samples of `node` go past the end of its measured window."""
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


def write_failed(agent: "Agent", outcome: Outcome) -> None:
    """run.failed.json of a run that ended before its measurement could be merged."""
    record = _record(agent, outcome, [agent.state], [], {"host": agent.state["host"]})
    write_json(agent.order.out_dir / "run.failed.json", record)


def _fail(agent: "Agent", outcome: Outcome, record: Mapping[str, Any]) -> int:
    shutil.rmtree(agent.raw / "merged", ignore_errors=True)
    write_json(agent.order.out_dir / "run.failed.json", record)
    return say_failed(agent, outcome, "the raw measurement is kept in")


def say_failed(agent: "NodeAgent", outcome: Outcome, kept: str) -> int:
    """Print why the job failed, with the last lines of this node's failed ranks; returns the exit code."""
    for local, code in sorted(agent.ranks.exit_codes.items()):
        if code:
            tail = agent.ranks.log(local).read_text(errors="replace").splitlines()[-_TAIL_LINES:]
            print(f"--- end of {agent.ranks.log(local)}", *tail, sep="\n", file=sys.stderr)
    print(
        f"error: {agent.name} failed ({outcome.reason}): {outcome.detail}; {kept} {agent.raw}",
        file=sys.stderr,
    )
    return 1


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _record(
    agent: "Agent",
    outcome: Outcome,
    states: Sequence[Mapping[str, Any]],
    measured: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of run.json."""
    order, ended = agent.order, time.time()
    training = outcome.ranks[0].get("training") if outcome.ranks else None
    if training:
        training = {**training, "startup_s": {**agent.times_s, **training["startup_s"]}}
    return {
        "schema": 1,
        "run_id": order.run_id,
        "row": order.row,
        "row_key": order.row_key,
        "protocol": order.protocol,
        "code_digest": order.code_digest,
        "status": outcome.status,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "started_utc": _utc(agent.started),
        "ended_utc": _utc(ended),
        "wall_s": round(ended - agent.started, 3),
        "environment": dict(environment),
        "nodes": [_node(state, measured) for state in states],
        "training": training,
    }


def _node(state: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = measured[state["node"]] if measured else {"meta": None, "events": []}
    names = ("rank", "device_uuid")
    return {
        "node": state["node"],
        "host": state["host"],
        "exit_codes": state.get("exit_codes", []),
        "devices": (found["meta"] or {}).get("devices", []),
        "sidecar_exit": state.get("sidecar_exit"),
        "cooldown": state.get("cooldown"),
        **found,
        "ranks": [{name: rank.get(name) for name in names} for rank in state.get("ranks", [])],
    }
