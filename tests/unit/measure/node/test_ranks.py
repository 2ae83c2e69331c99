"""Ranks are forked, watched and ended; nothing of the agent runs in them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jouleline.measure.node.files import rank_log
from jouleline.measure.node.ranks import Ranks


def run(tmp_path, count, body) -> Ranks:
    ranks = Ranks(tmp_path)
    ranks.start(count, body)
    deadline = time.monotonic() + 20
    while ranks.poll() and time.monotonic() < deadline:
        time.sleep(0.01)
    return ranks


def test_exit_codes_signals_and_output_are_kept_by_rank(tmp_path, capsys):
    def body(local, progress):
        print(f"rank {local} speaks")
        if local == 1:
            raise ValueError("rank one fails")
        if local == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 7 if local == 3 else 0

    with capsys.disabled():  # pytest's own stdout is no file that a rank could take over
        ranks = run(tmp_path, 4, body)
    assert ranks.exit_codes == {0: 0, 1: 1, 2: -9, 3: 7} and ranks.failed
    assert ranks.died == {0, 1, 2, 3}
    assert "rank 0 speaks" in rank_log(tmp_path, 0).read_text()
    assert "ValueError: rank one fails" in rank_log(tmp_path, 1).read_text()


def test_ranks_that_hang_are_ended_and_did_not_die_by_themselves(tmp_path):
    ranks = Ranks(tmp_path)
    ranks.start(2, lambda local, _: time.sleep(60) or 0 if local else 3)
    while not ranks.failed:
        ranks.poll()
        time.sleep(0.01)
    begin = time.monotonic()
    ranks.end()
    assert time.monotonic() - begin < 50
    assert ranks.exit_codes == {0: 3, 1: -9} and ranks.died == {0}


def test_a_rank_dies_with_its_agent(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from jouleline.measure.node.ranks import Ranks\n"
        f"ranks = Ranks(Path({str(tmp_path)!r})); ranks.start(1, lambda *_: time.sleep(60) or 0)\n"
        "print(ranks.pids[0], flush=True); time.sleep(60)"
    )
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    rank = int(agent.stdout.readline())
    os.kill(rank, 0)
    agent.kill()
    agent.wait()
    deadline = time.monotonic() + 5
    while state(rank) not in "ZX" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state(rank) in "ZX"


def state(pid: int) -> str:
    """The kernel's letter for a process; X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
