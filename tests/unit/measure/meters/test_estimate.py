"""The estimate, compared with the kernel's CPU time, for processes that end in every way."""

import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jouleline.measure.meters.base import Options
from jouleline.measure.meters.estimate import DISCOVER_S, EstimateMeter

W_PER_CORE = 10.0
BUSY = "import time\nend = time.process_time() + {s}\nwhile time.process_time() < end: pass\n"


# The last reading of a process is within its last milliseconds, on a busy machine within its last tenths. So it sleeps.
REST = "open({path!r}, 'w').close()\ntime.sleep(1)\n"


def busy(seconds: float, then: str = "") -> list[str]:
    return [sys.executable, "-S", "-c", BUSY.format(s=seconds) + then]


class Measured:
    """A meter over the children of this process. It is read every 20 ms until `command` has ended and was found."""

    def __init__(self):
        self.before_s = self._waited_s()
        options = Options(os.getpid(), 0.02, "n", watts_per_core=W_PER_CORE, idle_watts=0.0)
        self.meter = EstimateMeter(options)
        self.energies_mj = []

    def _waited_s(self) -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def read_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.energies_mj.append(self.meter.read()[1])
            time.sleep(0.02)

    def read_until(self, *paths: Path) -> None:
        until = time.monotonic() + 60
        while not all(path.exists() for path in paths) and time.monotonic() < until:
            self.read_for(0.02)
        self.read_for(DISCOVER_S + 0.05)

    def run(self, command: list[str]) -> None:
        child = subprocess.Popen(command)
        while child.poll() is None:
            self.read_for(0.02)
        self.read_for(DISCOVER_S + 0.05)

    def cpu_s(self) -> float:
        """CPU time by the meter's energy."""
        return self.energies_mj[-1] * 1e-3 / W_PER_CORE

    def true_s(self) -> float:
        """CPU time by the kernel, of all that this process has waited for."""
        return self._waited_s() - self.before_s


SHORT = f"""
import subprocess
for _ in range(12):
    subprocess.run({busy(0.05)!r})
"""
# Three generations. Each works before and after its own child.
NESTED = f"""
import subprocess
BUSY = {BUSY.format(s=0.15)!r}
exec(BUSY)
subprocess.run({[sys.executable, "-S", "-c", BUSY.format(s=0.3) + "import os; os.system('true')"]!r})
exec(BUSY)
"""


@pytest.mark.parametrize("program", [SHORT, NESTED], ids=["short", "nested"])
def test_processes_that_are_waited_for_count_wholly_and_once(program):
    measured = Measured()
    measured.run([sys.executable, "-c", program])
    # The kernel shows the time of ended children in ticks of 10 ms, for each of the two kinds.
    assert measured.cpu_s() == pytest.approx(measured.true_s(), abs=0.06)
    assert measured.energies_mj == sorted(measured.energies_mj)


def test_children_that_are_ignored_count_to_their_last_reading_and_once(tmp_path):
    done = [tmp_path / "first", tmp_path / "second"]
    program = "import signal, subprocess, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    for path in done:
        program += f"child = subprocess.Popen({busy(0.5, REST.format(path=str(path)))!r})\n"
        program += "while child.poll() is None: time.sleep(0.01)\n"
    measured = Measured()
    measured.run([sys.executable, "-c", program])
    # Nobody waits for them, so the kernel has no sum to compare with.
    assert all(path.exists() for path in done)
    assert measured.cpu_s() == pytest.approx(1.0 + measured.true_s(), abs=0.25)


def test_a_process_whose_parent_has_ended_goes_on_counting(tmp_path):
    there, leave, begin, done = (tmp_path / name for name in ("there", "leave", "begin", "done"))
    wait = "while [ ! -e {} ]; do sleep 0.05; done"
    work = shlex.join(busy(0.6, REST.format(path=str(done))))
    orphan = shlex.join(["sh", "-c", f"touch {there}; {wait.format(begin)}; {work}"])
    measured = Measured()
    parent = subprocess.Popen(["sh", "-c", f"{orphan} & {wait.format(leave)}"])
    measured.read_until(there)
    leave.touch()
    parent.wait(60)
    begin.touch()
    measured.read_until(done)
    assert measured.cpu_s() == pytest.approx(0.6 + measured.true_s(), abs=0.15)


def test_time_before_the_measurement_is_not_part_of_it(tmp_path):
    subprocess.run(busy(0.3))
    worked = tmp_path / "worked"
    program = BUSY.format(s=0.3) + f"open({str(worked)!r}, 'w').close()\ninput()\n"
    child = subprocess.Popen([sys.executable, "-S", "-c", program], stdin=subprocess.PIPE)
    while not worked.exists() and child.poll() is None:
        time.sleep(0.02)
    measured = Measured()
    measured.read_for(0.3)
    child.communicate(b"\n")
    measured.read_for(DISCOVER_S + 0.05)
    assert measured.cpu_s() == pytest.approx(0.0, abs=0.06)
