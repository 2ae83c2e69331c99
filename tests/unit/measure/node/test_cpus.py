"""The CPUs of a job, what others use of them, and the lock that keeps other measurements away."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from agent_process import Agent
from jouleline.measure.node import cpus, device_lock
from jouleline.measure.node.device_lock import DeviceLock
from jouleline.measure.raw.proc import TICK_NS

STAT = """cpu  100 0 0 0 0 0 0 0 0 0
cpu0 {} 1 2 1000 50 3 4 5 0 0
cpu1 7 0 0 1000 50 0 0 0 0 0
intr 5
"""


def test_busy_time_is_all_but_idle_of_the_given_cpus(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text(STAT.format(10))
    assert cpus.busy_ns({0}, stat) == 25 * TICK_NS
    assert cpus.busy_ns({0, 1}, stat) == 32 * TICK_NS
    assert cpus.busy_ns({0, 9}, stat) is None
    assert cpus.busy_ns({0}, tmp_path / "none") is None


def test_foreign_load_is_what_the_own_tree_did_not_use(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text(STAT.format(10))
    load = cpus.ForeignLoad(os.getpid(), {0, 1}, stat)
    begin = time.monotonic()
    time.sleep(0.5)
    stat.write_text(STAT.format(60))  # half a second of somebody's work
    assert load.cores() == pytest.approx(0.5 / (time.monotonic() - begin), abs=0.05)
    stat.unlink()
    assert load.cores() is None


def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_a_busy_child_is_no_foreign_load(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text(STAT.format(10))
    child = multiprocessing.get_context("fork").Process(target=spin, args=(30,))
    child.start()
    try:
        load = cpus.ForeignLoad(os.getpid(), {0, 1}, stat)
        time.sleep(0.4)
        stat.write_text(STAT.format(12))  # less than even a starved child has used
        assert load.cores() == 0.0
    finally:
        child.kill()
        child.join()


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="binding shows on two CPUs")
def test_what_binds_threads_leaves_the_ranks_the_cpus_of_their_job(tmp_path, small_dataset, monkeypatch):
    binding = {"OMP_PROC_BIND": "true", "GOMP_CPU_AFFINITY": "0"}  # each of them binds
    for name, value in binding.items():
        monkeypatch.setenv(name, value)
    code, output = Agent(tmp_path, small_dataset, from_nothing=True).wait()
    assert code == 0, output
    run = json.loads((tmp_path / "run.json").read_text())
    given = len(os.sched_getaffinity(0))
    (node,) = run["nodes"]
    assert node["cpus"] == run["environment"]["cpu_count"] == given
    assert [rank["cpus"] for rank in node["ranks"]] == [given, given]
    assert binding.items() <= run["environment"]["variables"].items()
    assert run["environment"]["variables"]["GLOO_SOCKET_IFNAME"] == "lo"
    assert all(rank["foreign_cores"] is not None for rank in node["ranks"])


HOLD = "from jouleline.measure.node.device_lock import *; lock = DeviceLock(); print(lock.take(), flush=True); input()"


def test_one_measurement_at_a_time_on_a_machine_without_being_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(device_lock.VARIABLE, raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert DeviceLock().path == str(device_lock.DEFAULT)
    monkeypatch.setattr(device_lock, "DEFAULT", tmp_path / "lock")
    first, second = DeviceLock(), DeviceLock()
    assert first.take() and not second.take() and not second.take()
    assert capsys.readouterr().err.count("waits until another measurement has ended") == 1
    first.release()
    assert second.take()
    second.release()
    # Agents of several nodes may be on one machine; Slurm says itself who shares a node.
    assert not DeviceLock(first=False).exists
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not DeviceLock().exists
    monkeypatch.setenv(device_lock.VARIABLE, str(tmp_path / "named"))
    assert DeviceLock().exists and DeviceLock(first=False).exists
    monkeypatch.setenv(device_lock.VARIABLE, "")
    assert not DeviceLock().exists


def test_a_lock_of_another_user_counts_and_the_kernel_frees_it(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    path.touch(0o444)
    environment = os.environ | {device_lock.VARIABLE: str(path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "True\n"
    monkeypatch.setenv(device_lock.VARIABLE, str(path))
    lock = DeviceLock()
    assert not lock.take()
    holder.kill()
    holder.communicate()
    assert lock.take()
    lock.release()
