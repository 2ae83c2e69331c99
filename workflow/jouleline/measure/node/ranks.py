"""The ranks of one node, forked from the agent.

The agent has imported torch, transformers and deepspeed once, so a node pays for the imports once and not for each
rank. The agent itself never computes: at the fork there is no CUDA context and no OpenMP thread. Every child dies with
the agent (PR_SET_PDEATHSIG), even when the agent is killed.
"""

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from jouleline.measure.node.files import rank_log
from jouleline.measure.raw.proc import signal_at_parents_end

POLL_S = 0.05
_GRACE_S = 1.0

RankBody = Callable[[int, TextIO], int]


class Ranks:
    """The ranks of this node by local number.

    `exit_codes` has the ranks that ended: an exit code, or minus a signal. `died` has those that ended by themselves.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.pids: dict[int, int] = {}
        self.exit_codes: dict[int, int] = {}
        self.died: set[int] = set()

    def start(self, count: int, body: RankBody) -> None:
        """Fork `count` ranks. Each calls body(local_rank, progress) and exits with what it returns. Its output goes to
        rank-<local>.log in the folder. `progress` is the agent's own stderr."""
        sys.stdout.flush()
        sys.stderr.flush()
        # A garbage collection in a rank would write to every page that it shares with the agent, and so copy it.
        gc.collect()
        gc.freeze()
        agent = os.getpid()
        for local in range(count):
            pid = os.fork()
            if pid == 0:
                _be_a_rank(agent, rank_log(self.folder, local), body, local)
            self.pids[local] = pid

    def poll(self) -> bool:
        """Note which ranks have ended. True while a rank runs."""
        for local, pid in self.pids.items():
            if local not in self.exit_codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.exit_codes[local] = os.waitstatus_to_exitcode(status)
                    self.died.add(local)
        return len(self.exit_codes) < len(self.pids)

    @property
    def failed(self) -> bool:
        return any(self.exit_codes.values())

    def end(self) -> None:
        """Give failing ranks time to say why, then end those that are left."""
        deadline = time.monotonic() + _GRACE_S
        while self.poll() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the ranks that are left. They have nothing to save: their marks are in the kernel already."""
        for local, pid in self.pids.items():
            if local not in self.exit_codes:
                os.kill(pid, signal.SIGKILL)
                self.exit_codes[local] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _be_a_rank(agent: int, log: Path, body: RankBody, local: int) -> None:
    """Never returns. The way out of the agent (its finally blocks, atexit) is not the rank's."""
    code = 1
    try:
        die_with_parent(agent)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        progress = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8")
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = body(local, progress)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends. End now if it has ended already."""
    signal_at_parents_end(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
