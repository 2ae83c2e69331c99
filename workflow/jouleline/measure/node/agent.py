"""What every agent of a node does, whatever its ranks are for: it meets the agents of the other nodes, watches its own
ranks and what the others say, obeys signals, and says how its part ended."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json, write_json
from jouleline.measure.node.device_lock import DeviceLock
from jouleline.measure.node.environment import interface_to
from jouleline.measure.node.outcome import Outcome, of_ranks
from jouleline.measure.node.place import Place
from jouleline.measure.node.ranks import POLL_S, Ranks
from jouleline.measure.node.rendezvous import Meeting, meet

_PEERS_S = 120.0
# How long a node that was told to end stays for the others to learn it: Slurm kills after 30 s.
_LAST_WORDS_S = 20.0
_TAIL_LINES = 15
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(BaseException):
    """A signal asked the agent to end (Slurm's time limit, scancel, Ctrl-C)."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class NodeAgent:
    """One node's part of one job. `name` says what it is, `raw` is the folder that the nodes share, `timeout_s` is how
    long any of them may take to start.

    A kind of job says what is done (`work`), how node 0 ends it (`conclude`), and what is kept of one that came to
    no end (`keep`).
    """

    def __init__(self, name: str, raw: Path, place: Place, timeout_s: float):
        self.name, self.raw, self.place, self.timeout_s = name, raw, place, timeout_s
        self.folder = raw / f"node-{place.node}"
        self.ranks = Ranks(self.folder)
        self.lock = DeviceLock()
        self.kills = 0
        self.next_look = 0.0
        # Whether the meeting of the agents is over; None: this one has not come to it.
        self.met: bool | None = None
        self.device = "cpu"
        self.times_s: dict[str, float] = {}
        self.state: dict[str, Any] = {"node": place.node, "host": socket.gethostname()}

    def work(self) -> Outcome:
        """This node's part, to its end."""
        raise NotImplementedError

    def conclude(self, outcome: Outcome, states: list[dict[str, Any]]) -> int:
        """On node 0, when all nodes have said how their part ended (`states`, node 0 first): the exit code."""
        raise NotImplementedError

    def keep(self, outcome: Outcome) -> None:
        """Save what there is when a signal has come or the agent itself has failed."""

    def release(self) -> None:
        """On every way out, when the ranks are ended."""

    def run(self) -> int:
        """The exit code: 0 where the job is a result (node 0: and its files are written).

        Raises UserError where it cannot start. Children are ended on every way out.
        """
        previous = {number: signal.signal(number, _stop) for number in _SIGNALS}
        try:
            return self._finish(self.work())
        except Stopped as stop:
            for number in _SIGNALS:  # what is left is saving; a second signal must not cut it short
                signal.signal(number, signal.SIG_IGN)
            self.ranks.kill()
            outcome = Outcome("failed", "stopped", f"{stop} came before the run was done")
            self.keep(outcome)
            self._publish(outcome)
            print(f"error: {self.name} was stopped by {stop}", file=sys.stderr)
            if not self.met:
                self._meet_to_refuse(str(outcome.detail), _LAST_WORDS_S)
            return 128 + stop.number
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            self.ranks.kill()
            with suppress(UserError, OSError):  # the error itself matters more
                self.keep(Outcome("failed", "agent_failed", why))
            self._tell_peers(why)
            raise
        finally:
            self.ranks.kill()
            self.release()
            self.lock.release()
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Keep the seconds that something took in `times_s`."""
        begin = time.perf_counter()
        yield
        self.times_s[name] = round(time.perf_counter() - begin, 3)

    def clear(self) -> None:
        """Remove what an earlier attempt left; every node its own part. Raises UserError."""
        node = self.place.node
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.raw / f"hello-{node}.json").unlink(missing_ok=True)
        self._state_file(node).unlink(missing_ok=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; make the folder writable or choose another"
            ) from error

    def meet(self) -> Meeting:
        """Wait for the agents of all nodes. Raises UserError where one does not come or cannot start."""
        place = self.place
        self.met = False
        with self.timed("meeting"):
            meeting = meet(self.raw, place.node, place.nodes, place.address, self.timeout_s)
        self.met = True
        if meeting.peer and self.device == "cpu":
            # gloo would take the interface of the host's own name, which is often the loopback.
            interface = interface_to(meeting.peer)
            if interface:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        return meeting

    def take_device(self) -> Outcome | None:
        """Wait for the device lock where there is one; what ended the job meanwhile, or None."""
        if not self.lock.exists:
            return None
        with self.timed("device_wait"):
            return self.until(self.lock.take)

    def of_ranks(self) -> Outcome:
        """How this node's ranks have ended."""
        return of_ranks(self.ranks, self.place.node * self.place.per_node, self.kills)

    def fail(self, outcome: Outcome, kept: str) -> int:
        """Print why the job failed, with the last lines of this node's failed ranks; returns the exit code."""
        for local, code in sorted(self.ranks.exit_codes.items()):
            if code:
                tail = self.ranks.log(local).read_text(errors="replace").splitlines()[-_TAIL_LINES:]
                print(f"--- end of {self.ranks.log(local)}", *tail, sep="\n", file=sys.stderr)
        print(
            f"error: {self.name} failed ({outcome.reason}): {outcome.detail}; {kept} {self.raw}",
            file=sys.stderr,
        )
        return 1

    def ended(self) -> bool:
        """Whether no rank runs any more."""
        return not self.ranks.poll()

    def until(
        self, done: Callable[[], bool], state: str | None = None, limit_s: float | None = None
    ) -> Outcome | None:
        """Wait for `done`; None once it is so, else what ended the job: a rank, another node, or, where the ranks come
        into a `state` that has a limit (`timeout_s` unless given), the time. No rank is left then."""
        limit_s = limit_s or self.timeout_s
        deadline = time.monotonic() + limit_s
        while not done():
            time.sleep(POLL_S)
            self.ranks.poll()
            if self.ranks.failed:
                self.ranks.end()
                return self.of_ranks()
            if state and time.monotonic() > deadline:
                self.ranks.kill()
                detail = f"the ranks were not {state} within {limit_s:g} s"
                return Outcome("failed", "startup_timeout", detail)
            failed = self._failed_peer()
            if failed:
                self.ranks.end()
                return failed
        return None

    def _tell_peers(self, failure: str) -> None:
        """Say that this node cannot go on, where the others would look for it: they would wait for it."""
        if self.met and self.place.nodes > 1:
            self._publish(Outcome("failed", "node_failed", failure))
        elif self.met is None:
            self._meet_to_refuse(failure, _PEERS_S)

    def _meet_to_refuse(self, failure: str, most_s: float) -> None:
        """Come to the meeting of the agents, again where this one was in it already, to say that there is no run."""
        place = self.place
        if place.nodes == 1:
            return
        timeout_s = min(self.timeout_s, most_s)
        with suppress(UserError, OSError, Stopped):
            self.raw.mkdir(parents=True, exist_ok=True)
            meet(self.raw, place.node, place.nodes, place.address, timeout_s, failure)

    def _failed_peer(self) -> Outcome | None:
        """How another node failed, looked for once a second."""
        if self.place.nodes == 1 or time.monotonic() < self.next_look:
            return None
        self.next_look = time.monotonic() + 1.0
        for node, state in self._peers().items():
            if state["status"] != "ok":
                return Outcome(state["status"], state["reason"], f"node {node}: {state['detail']}")
        return None

    def _state_file(self, node: int) -> Path:
        return self.raw / f"state-{node}.json"

    def _peers(self) -> dict[int, dict[str, Any]]:
        """What the other nodes have published, by node."""
        others = [node for node in range(self.place.nodes) if node != self.place.node]
        return {node: read_json(self._state_file(node)) for node in others if self._state_file(node).exists()}

    def _publish(self, outcome: Outcome) -> None:
        """Say how this node's part ended, for node 0 and for peers that still run."""
        self.state |= {
            "status": outcome.status,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "exit_codes": [self.ranks.exit_codes.get(local) for local in sorted(self.ranks.pids)],
            "ranks": outcome.ranks,
        }
        write_json(self._state_file(self.place.node), self.state)

    def _finish(self, outcome: Outcome) -> int:
        self._publish(outcome)
        if self.place.node > 0:
            return 0 if outcome.status in ("ok", "oom") else 1
        deadline = time.monotonic() + _PEERS_S
        while len(self._peers()) < self.place.nodes - 1:
            if time.monotonic() > deadline:
                outcome = outcome.worse("failed", "node_missing", "a node did not say how its part ended")
                break
            time.sleep(POLL_S)
        states = [self.state, *(state for _, state in sorted(self._peers().items()))]
        for state in states[1:]:
            outcome = outcome.worse(
                state["status"], state["reason"], f"node {state['node']}: {state['detail']}"
            )
        return self.conclude(outcome, states)


def _stop(number: int, _frame: Any) -> None:
    raise Stopped(number)
