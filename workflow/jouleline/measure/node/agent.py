"""What every agent of a node does, whatever its ranks are for: it meets the agents of the other nodes, watches its own
ranks and what the others say, obeys signals, and says how its part ended."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json, write_json
from jouleline.measure.node import files, gpu_users
from jouleline.measure.node.cpus import unbind
from jouleline.measure.node.device_lock import DeviceLock
from jouleline.measure.node.environment import speed_variables
from jouleline.measure.node.failures import oom_kills
from jouleline.measure.node.network import use_interface
from jouleline.measure.node.outcome import Outcome, of_ranks
from jouleline.measure.node.place import Place
from jouleline.measure.node.ranks import POLL_S, RankBody, Ranks
from jouleline.measure.node.rendezvous import Meeting, meet

_PEERS_S = 120.0
# How long a node that must end waits, so that the others learn it. Slurm kills after 30 s.
_LAST_WORDS_S = 20.0
_TAIL_LINES = 15
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(BaseException):
    """A signal asked the agent to end (Slurm's time limit, scancel, Ctrl-C)."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Ended(Exception):
    """The job ended before this node's ranks had done their work. `outcome` says how."""

    def __init__(self, outcome: Outcome):
        super().__init__(outcome.detail)
        self.outcome = outcome


class Phase(Enum):
    """How far an agent has come in its contact with other nodes. It decides where they look for its last words."""

    ALONE = "has not come to the meeting"
    MEETING = "waits there"
    TOGETHER = "has met all others"


class NodeAgent:
    """One node's part of one job.

    `name` says what the job is. `raw` is the folder that the nodes share. `timeout_s` is the time that any node may
    take to start. A kind of job defines what is done (`steps`), how node 0 ends it (`conclude`), and what is kept
    (`close`, `keep`).
    """

    def __init__(self, name: str, raw: Path, place: Place, timeout_s: float):
        self.name, self.raw, self.place, self.timeout_s = name, raw, place, timeout_s
        self.folder = files.node_folder(raw, place.node)
        self.ranks = Ranks(self.folder)
        self.lock = DeviceLock(first=place.node == 0)
        # Read before torch is imported. Below, what torch reads of the environment is changed, for ranks and libraries.
        self.variables = speed_variables()
        self.cpus = unbind()
        self.kills = 0
        self.next_look = 0.0
        self.phase = Phase.ALONE
        self.device = "cpu"
        self.times_s: dict[str, float] = {}
        self.state: dict[str, Any] = {
            **{"node": place.node, "host": socket.gethostname(), "cpus": len(self.cpus)}
        }

    def steps(self) -> Sequence[Callable[[], None]]:
        """This node's part, step by step. A step may raise UserError, or Ended where the job is over."""
        raise NotImplementedError

    def conclude(self, outcome: Outcome, states: list[dict[str, Any]]) -> int:
        """On node 0, when all nodes have said how their part ended (`states`, node 0 first). Returns the exit code."""
        raise NotImplementedError

    def close(self, outcome: Outcome) -> None:
        """End what measures beside the ranks. The ranks have ended already."""

    def keep(self, outcome: Outcome) -> None:
        """Save what there is, after a signal or an error of the agent itself."""

    def release(self) -> None:
        """Called on every way out, when the ranks have ended."""

    def run(self) -> int:
        """The exit code: 0 where the job is a result (and, on node 0, its files are written).

        Raises UserError where the job cannot start. Children are ended on every way out.
        """
        previous = {number: signal.signal(number, _stop) for number in _SIGNALS}
        try:
            outcome = self._work()
            self.close(outcome)
            self.lock.release()
            return self._finish(outcome)
        except Stopped as stop:
            return self._end_stopped(stop)
        except Exception as error:
            self._end_broken(" ".join(str(error).split()) or type(error).__name__)
            raise
        finally:
            self._leave()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _leave(self) -> None:
        self.ranks.kill()
        self.release()
        self.lock.release()

    def _work(self) -> Outcome:
        try:
            for step in self.steps():
                step()
        except Ended as ended:
            return ended.outcome
        return self.of_ranks()

    def _end_stopped(self, stop: Stopped) -> int:
        for number in _SIGNALS:  # only saving is left, and a second signal must not interrupt it
            signal.signal(number, signal.SIG_IGN)
        self.ranks.kill()
        outcome = Outcome("failed", "stopped", f"{stop} came before the run was done")
        self.keep(outcome)
        self._publish(outcome)
        print(f"error: {self.name} was stopped by {stop}", file=sys.stderr)
        if self.phase is not Phase.TOGETHER:
            self._meet_to_refuse(str(outcome.detail), _LAST_WORDS_S)
        return 128 + stop.number

    def _end_broken(self, why: str) -> None:
        self.ranks.kill()
        with suppress(UserError, OSError):  # the error itself matters more
            self.keep(Outcome("failed", "agent_failed", why))
        if self.phase is Phase.TOGETHER and self.place.nodes > 1:
            self._publish(Outcome("failed", "node_failed", why))
        elif self.phase is Phase.ALONE:
            self._meet_to_refuse(why, _PEERS_S)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Use this around imports of torch and similar libraries. An exception from a signal inside their C++ code
        would abort the process without a message. So here a signal ends the agent at once."""
        for number in _SIGNALS:
            signal.signal(number, self._end_here)
        try:
            yield
        finally:
            for number in _SIGNALS:
                signal.signal(number, _stop)

    def _end_here(self, number: int, _frame: Any) -> None:
        code = self._end_stopped(Stopped(number))
        self._leave()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Keep the seconds that a step took in `times_s`."""
        begin = time.perf_counter()
        yield
        self.times_s[name] = round(time.perf_counter() - begin, 3)

    def clear(self) -> None:
        """Remove what an earlier attempt left. Every node removes its own part. Raises UserError."""
        node = self.place.node
        shutil.rmtree(self.folder, ignore_errors=True)
        files.hello_file(self.raw, node).unlink(missing_ok=True)
        files.state_file(self.raw, node).unlink(missing_ok=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; make the folder writable or choose another"
            ) from error

    def meet(self) -> Meeting:
        """Wait for the agents of all nodes. Raises UserError where one does not come or cannot start."""
        place = self.place
        self.phase = Phase.MEETING
        with self.timed("meeting"):
            meeting = meet(self.raw, place.node, place.nodes, place.address, self.timeout_s)
        self.phase = Phase.TOGETHER
        use_interface(meeting.peer)
        return meeting

    def start_ranks(self, body: RankBody, meeting: Meeting) -> None:
        """Fork this node's ranks. They meet at `meeting`."""
        os.sched_setaffinity(0, self.cpus)  # an import may have narrowed it
        self.kills = oom_kills()
        self.ranks.start(self.place.per_node, body)
        if meeting.listen_fd is not None:
            os.close(meeting.listen_fd)

    def take_device(self) -> None:
        """Wait for the device lock, if there is one. Raises UserError where others use the job's GPUs."""
        if self.lock.exists:
            with self.timed("device_wait"):
                self.until(self.lock.take)

        if self.device == "cuda":
            gpu_users.require_unused()

    def of_ranks(self) -> Outcome:
        """How this node's ranks have ended. If others held memory, the configuration does not count as too large."""
        outcome = of_ranks(self.ranks, self.place.node * self.place.per_node, self.kills)
        if outcome.status != "oom" or self.device != "cuda":
            return outcome
        return outcome.shared_with(gpu_users.foreign_users(self.ranks.pids.values()))

    def fail(self, outcome: Outcome, kept: str) -> int:
        """Print why the job failed, with the last lines of this node's failed ranks. Returns the exit code."""
        for local, code in sorted(self.ranks.exit_codes.items()):
            if code:
                log = files.rank_log(self.folder, local)
                print(f"--- end of {log}", *files.last_lines(log, _TAIL_LINES), sep="\n", file=sys.stderr)
        print(
            f"error: {self.name} failed ({outcome.reason}): {outcome.detail}; {kept} {self.raw}",
            file=sys.stderr,
        )
        return 1

    def ended(self) -> bool:
        """Whether no rank runs any more."""
        return not self.ranks.poll()

    def until(self, done: Callable[[], bool], state: str | None = None, limit_s: float | None = None) -> None:
        """Wait for `done`.

        Raises Ended, with no rank left, in two cases: a rank or another node ends the job before, or the ranks do not
        come into `state` within `limit_s` (default: `timeout_s`). Without a state there is no limit.
        """
        limit_s = limit_s or self.timeout_s
        deadline = time.monotonic() + limit_s
        while not done():
            time.sleep(POLL_S)
            self.ranks.poll()
            if self.ranks.failed:
                self.ranks.end()
                raise Ended(self.of_ranks())
            if state and time.monotonic() > deadline:
                self.ranks.kill()
                detail = f"the ranks were not {state} within {limit_s:g} s"
                raise Ended(Outcome("failed", "startup_timeout", detail))
            failed = self._failed_peer()
            if failed:
                self.ranks.end()
                raise Ended(failed)

    def _meet_to_refuse(self, failure: str, most_s: float) -> None:
        """Come to the meeting of the agents, if need be again, to say that there is no run."""
        place = self.place
        if place.nodes == 1:
            return
        timeout_s = min(self.timeout_s, most_s)
        with suppress(UserError, OSError, Stopped):
            self.raw.mkdir(parents=True, exist_ok=True)
            meet(self.raw, place.node, place.nodes, place.address, timeout_s, failure)

    def _failed_peer(self) -> Outcome | None:
        """How another node failed. It looks once a second."""
        if self.place.nodes == 1 or time.monotonic() < self.next_look:
            return None
        self.next_look = time.monotonic() + 1.0
        for node, state in self._peers().items():
            if state["status"] != "ok":
                return Outcome(state["status"], state["reason"], f"node {node}: {state['detail']}")
        return None

    def _peers(self) -> dict[int, dict[str, Any]]:
        """What the other nodes have published, by node."""
        others = [node for node in range(self.place.nodes) if node != self.place.node]
        paths = {node: files.state_file(self.raw, node) for node in others}
        return {node: read_json(path) for node, path in paths.items() if path.exists()}

    def _publish(self, outcome: Outcome) -> None:
        """Publish how this node's part ended, for node 0 and for peers that still run."""
        self.state |= {
            "status": outcome.status,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "exit_codes": [self.ranks.exit_codes.get(local) for local in sorted(self.ranks.pids)],
            "ranks": outcome.ranks,
        }
        write_json(files.state_file(self.raw, self.place.node), self.state)

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
