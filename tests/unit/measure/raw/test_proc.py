"""What the kernel says of a process."""

import os
import subprocess
import sys
import time

import pytest
from jouleline.measure.raw.proc import age_s, alive, cpu_time_ns, descendants, look, looks, pids

# A command whose name would lead astray a reader that splits at blanks.
RENAME = "open('/proc/self/comm', 'w').write(') Z 1 (')\n"


@pytest.fixture
def child():
    program = RENAME + "print('up', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", program], text=True, **pipes)
    process.stdout.readline()
    yield process
    process.communicate("\n")


def test_a_process_is_seen_whatever_its_name(child):
    seen = look(child.pid)
    assert seen.parent == os.getpid() and seen.waited_ns == 0
    assert seen.start_ns > look("self").start_ns
    assert alive(child.pid) and not seen.ended
    assert child.pid in descendants([os.getpid()]) and looks(pids())[child.pid] == seen
    assert child.pid not in descendants([os.getpid()], {child.pid})


def test_its_age_and_its_cpu_time(child):
    before, wall_s = age_s(child.pid), time.monotonic()
    time.sleep(0.2)
    assert age_s(child.pid) - before == pytest.approx(time.monotonic() - wall_s, abs=0.05)
    assert 0 < cpu_time_ns(child.pid) < 10e9


def test_what_has_ended_is_not_there(child):
    child.kill()
    deadline = time.monotonic() + 10
    # Not waited for: a zombie.
    while alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert look(child.pid).ended and not alive(child.pid)
    child.wait()
    assert not alive(child.pid)
    assert look(child.pid) is None and age_s(child.pid) is None and cpu_time_ns(child.pid) is None


def test_a_parent_shows_the_time_of_the_children_it_has_waited_for():
    before = look("self").waited_ns
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    assert look("self").waited_ns > before
