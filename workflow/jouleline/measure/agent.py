"""The node agent: one per node, starts the sidecar and the ranks, watches them, and leaves three whole files.

Order on a node: imports, meeting of the agents, ranks that load their data and build their model on the CPU, the
device lock where there is one, cool-down, sidecar with its idle baseline, training, sidecar's idle baseline after,
end. Node 0 then merges what the nodes measured and writes samples.parquet, markers.parquet and, last, run.json into
the run's folder. A run that is worth nothing leaves run.failed.json and its raw measurement instead.
"""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json, write_json
from jouleline.measure import gpus
from jouleline.measure.corpus import read_facts
from jouleline.measure.device_lock import DeviceLock
from jouleline.measure.environment import choose_device, cool_down, describe, interface_to
from jouleline.measure.failures import oom_kills
from jouleline.measure.launcher import POLL_S, Ranks, Sidecar, go_file, prepared_file
from jouleline.measure.markers import ENVIRONMENT
from jouleline.measure.outcome import Outcome, merge, of_ranks, write_failed
from jouleline.measure.protocol import LONGEST_TICK_S
from jouleline.measure.rendezvous import Meeting, meet
from jouleline.strategy import require

_PEERS_S = 120.0


class Stopped(BaseException):
    """A signal asked the agent to end (Slurm's time limit, scancel, Ctrl-C)."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class Order:
    """What to measure and where. `row` and `protocol` are complete; `address` is how other nodes reach this one."""

    run_id: str
    row: dict[str, Any]
    row_key: str
    protocol: dict[str, Any]
    code_digest: str
    dataset: Path
    out_dir: Path
    node: int = 0
    address: str | None = None


@dataclass
class Agent:
    """One node's part of one run; `run` returns the exit code."""

    order: Order
    times_s: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    def __post_init__(self):
        self.raw = self.order.out_dir / "raw"
        self.folder = self.raw / f"node-{self.order.node}"
        self.nodes = self.order.row["nodes"]
        self.ranks = Ranks(self.folder)
        self.sidecar: Sidecar | None = None
        self.lock = DeviceLock()
        # Whether the meeting of the agents is over; None: this one has not come to it.
        self.met: bool | None = None
        self.state: dict[str, Any] = {"node": self.order.node, "host": socket.gethostname()}

    def run(self) -> int:
        """Measure; 0 where the run is ok or out of memory (node 0: and its files are written), else not 0.

        Raises UserError where the run cannot start. Children are ended on every way out.
        """
        previous = {number: signal.signal(number, _stop) for number in _SIGNALS}
        try:
            return self._finish(self._measure())
        except Stopped as stop:
            for number in _SIGNALS:  # what is left is saving; a second signal must not cut it short
                signal.signal(number, signal.SIG_IGN)
            self.ranks.kill()
            outcome = Outcome("failed", "stopped", f"{stop} came before the run was done")
            self._end_sidecar(outcome)
            self._publish(outcome)
            if self.order.node == 0:
                write_failed(self, outcome)
            print(f"error: run {self.order.run_id} was stopped by {stop}", file=sys.stderr)
            return 128 + stop.number
        except Exception as error:
            self._tell_peers(" ".join(str(error).split()))
            raise
        finally:
            self.ranks.kill()
            if self.sidecar and not self.sidecar.died:
                self.sidecar.terminate()
            self.lock.release()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _measure(self) -> Outcome:
        order = self.order
        self.times_s["python"] = round(_age_s(), 3)
        self.device = choose_device(order.protocol["device"])
        require(order.row, self.device)
        read_facts(order.dataset, order.row)
        self._clear()
        if self.device == "cuda":
            gpus.take_gpus(order.row)
        # DeepSpeed would look for a device by itself, and warn.
        os.environ.setdefault("DS_ACCELERATOR", self.device)
        with self._timed("imports"):
            from jouleline.measure.rank import Job, run_rank
        if self.device == "cuda":
            gpus.require_cuda_torch()
        with self._timed("meeting"):
            meeting = self._meet()
        job = Job(order.row, order.protocol, order.dataset, self.folder, self.device, order.node, meeting)
        os.environ[ENVIRONMENT] = str(self.folder / "markers")
        kills = oom_kills()
        self.ranks.start(order.row["gpus_per_node"], partial(run_rank, job))
        if meeting.listen_fd is not None:
            os.close(meeting.listen_fd)
        self._until_prepared()
        # What is before this may run beside another measurement; no device has been touched.
        waited_s = self.lock.acquire()
        if waited_s is not None:
            self.times_s["device_wait"] = round(waited_s, 3)
        with self._timed("cooldown"):
            self.state["cooldown"] = cool_down(order.protocol, self.device)
        with self._timed("sidecar"):
            tick_s = _tick_s(self._start_sidecar())
        write_json(go_file(self.folder), {"tick_s": tick_s})
        outcome = self._watch(kills)
        self._end_sidecar(outcome)
        self.lock.release()
        return outcome

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.times_s[name] = round(time.perf_counter() - begin, 3)

    def _until_prepared(self) -> None:
        """Wait until every rank has its data and model on the CPU; `_watch` says what is with one that has not."""
        deadline = time.monotonic() + self.order.protocol["startup_timeout_s"]
        waiting = {prepared_file(self.folder, local) for local in self.ranks.pids}
        while self.ranks.poll() and not self.ranks.failed and time.monotonic() < deadline:
            waiting = {path for path in waiting if not path.exists()}
            if not waiting:
                return
            time.sleep(POLL_S)

    def _meet(self) -> Meeting:
        order, timeout_s = self.order, self.order.protocol["startup_timeout_s"]
        self.met = False
        meeting = meet(self.raw, order.node, self.nodes, order.address, timeout_s)
        self.met = True
        if meeting.peer and self.device == "cpu":
            # gloo would take the interface of the host's own name, which is often the loopback.
            interface = interface_to(meeting.peer)
            if interface:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        return meeting

    def _tell_peers(self, failure: str) -> None:
        """Say that this node cannot go on, where the others would look for it: they would wait for it."""
        order = self.order
        if self.nodes == 1:
            return
        if self.met:
            self._publish(Outcome("failed", "node_failed", failure))
        elif self.met is None:
            timeout_s = min(order.protocol["startup_timeout_s"], _PEERS_S)
            with suppress(UserError, OSError):
                self.raw.mkdir(parents=True, exist_ok=True)
                meet(self.raw, order.node, self.nodes, order.address, timeout_s, failure)

    def _clear(self) -> None:
        """Remove what an earlier attempt left; every node its own part."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.raw / f"hello-{self.order.node}.json").unlink(missing_ok=True)
        self._state_file(self.order.node).unlink(missing_ok=True)
        if self.order.node == 0:
            for name in ("run.json", "samples.parquet", "markers.parquet"):
                (self.order.out_dir / name).unlink(missing_ok=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; make the folder writable or choose another"
            ) from error

    def _start_sidecar(self) -> Mapping[str, Any]:
        scratch = os.environ.get("SLURM_TMPDIR")
        if scratch:
            scratch = str(Path(scratch) / f"jouleline-{self.order.run_id}-{self.order.node}")
        self.sidecar = Sidecar(self.folder, self.order.protocol, scratch)
        return self.sidecar.wait_ready(self.order.protocol["startup_timeout_s"])

    def _watch(self, kills: int) -> Outcome:
        """Wait for the ranks; end them when one fails, here or on another node, or none trains in time."""
        deadline = time.monotonic() + self.order.protocol["startup_timeout_s"]
        training = self.folder / "training"
        next_peers = time.monotonic()
        while self.ranks.poll():
            time.sleep(POLL_S)
            if self.ranks.failed:
                self.ranks.end()
                break
            if not training.exists() and time.monotonic() > deadline:
                self.ranks.kill()
                limit = self.order.protocol["startup_timeout_s"]
                return Outcome("failed", "startup_timeout", f"no rank was training within {limit:g} s")
            if self.nodes > 1 and time.monotonic() >= next_peers:
                next_peers = time.monotonic() + 1.0
                failed = self._failed_peer()
                if failed:
                    self.ranks.end()
                    return failed
        return of_ranks(self, kills)

    def _failed_peer(self) -> Outcome | None:
        for node, state in self._peers().items():
            if state["status"] != "ok":
                return Outcome(state["status"], state["reason"], f"node {node}: {state['detail']}")
        return None

    def _state_file(self, node: int) -> Path:
        return self.raw / f"state-{node}.json"

    def _peers(self) -> dict[int, dict[str, Any]]:
        """What the other nodes have published, by node."""
        others = [node for node in range(self.nodes) if node != self.order.node]
        return {node: read_json(self._state_file(node)) for node in others if self._state_file(node).exists()}

    def _end_sidecar(self, outcome: Outcome) -> None:
        """Stop the sidecar: with its idle baseline where the run is good, at once where it is not."""
        if self.sidecar is None:
            return
        died = self.sidecar.died
        stop = self.sidecar.stop if outcome.status == "ok" else self.sidecar.terminate
        self.state["sidecar_exit"] = stop()
        if died or self.state["sidecar_exit"] != 0:
            self.state["sidecar_died"] = True

    def _publish(self, outcome: Outcome) -> None:
        """Say how this node's part ended, for node 0 and for peers that still run."""
        self.state |= {
            "status": outcome.status,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "exit_codes": [self.ranks.exit_codes.get(local) for local in sorted(self.ranks.pids)],
            "ranks": outcome.ranks,
        }
        write_json(self._state_file(self.order.node), self.state)

    def _finish(self, outcome: Outcome) -> int:
        self._publish(outcome)
        if self.order.node > 0:
            return 0 if outcome.status in ("ok", "oom") else 1
        deadline = time.monotonic() + _PEERS_S
        while len(self._peers()) < self.nodes - 1:
            if time.monotonic() > deadline:
                outcome = outcome.worse("failed", "node_missing", "a node did not say how its part ended")
                break
            time.sleep(POLL_S)
        states = [self.state, *(state for _, state in sorted(self._peers().items()))]
        for state in states[1:]:
            outcome = outcome.worse(
                state["status"], state["reason"], f"node {state['node']}: {state['detail']}"
            )
        return merge(self, outcome, states, describe(self.device, outcome.found))


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def _age_s() -> float:
    """Seconds since this process began, by the kernel's ticks: the interpreter and the imports before the agent."""
    began_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began_ticks / os.sysconf("SC_CLK_TCK")


def _stop(number: int, _frame: Any) -> None:
    raise Stopped(number)


def _tick_s(ready: Mapping[str, Any]) -> float | None:
    """The longest time between two updates of this node's energy counters; None where none moves in ticks.

    NVML's counter moves every 20 to 100 ms, depending on the GPU. How often this one does is known only after the
    run, so the longest is taken.
    """
    ticking = any(device.get("counter") == "ticking" for device in ready.get("devices", []))
    return LONGEST_TICK_S if ticking else None
