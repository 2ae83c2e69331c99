"""The test cluster itself: real energy figures, no effect outside, and nothing left behind, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jouleline.slurm import accounting

from tests.slurm import packages, settings
from tests.slurm.cluster import Cluster
from tests.slurm.fixtures import lend, remove_leftovers

pytestmark = pytest.mark.slurm

OWNER = """
import sys, time
from pathlib import Path
from tests.slurm.cluster import Cluster
from tests.slurm.settings import Settings
Cluster(Settings(nodes=1, accounting=False), Path(sys.argv[1]), owned=True).up()
print("up", flush=True)
time.sleep(600)
"""


def processes_of(folder: Path) -> list[str]:
    """Command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and str(os.getpid()) != path.parent.name:
            found.append(command)
    return found


def listening_ports() -> set[int]:
    """TCP ports that something listens on in this network namespace."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {int(fields[1].split(":")[1], 16) for fields in map(str.split, lines) if fields[3] == "0A"}


def test_bringing_it_up_again_does_nothing(slurm):
    before = slurm.holder_pid()
    slurm.up()
    assert slurm.holder_pid() == before


def test_nothing_of_it_listens_outside_its_namespace(slurm):
    ports = {settings.SLURMCTLD_PORT, settings.SLURMDBD_PORT, settings.MYSQL_PORT, settings.SLURMD_PORT + 1}
    assert not ports & listening_ports()
    assert not Path("/etc/slurm").exists()


def test_gpus_are_given_per_node_and_seen_by_the_job(slurm, tmp_path):
    script = 'echo "$(hostname) $CUDA_VISIBLE_DEVICES"'
    lines = slurm.run("srun", "-N2", "--gres=gpu:2", "sh", "-c", script, cwd=tmp_path).splitlines()
    assert sorted(line.split()[1] for line in lines) == ["0,1", "0,1"]
    assert len({line.split()[0] for line in lines}) == 2


def test_slurms_energy_of_a_step_is_its_nodes_power_times_its_time(slurm, tmp_path):
    """Two nodes of 300 and 500 W for four seconds: the step's figure, whole nodes; the job's is not used."""
    slurm.set_power("n1", 300)
    slurm.set_power("n2", 500)
    steps = ["-w", "n1,n2", "-N2", "-o", "/dev/null", "--wrap", "srun -N2 sleep 4"]
    job = slurm.run("sbatch", "--parsable", *steps, cwd=tmp_path)
    step = f"{job.strip()}.0"
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{slurm.state}/bin:{path}"
    try:
        slurm.wait_for(
            lambda: (accounting.query([step]).get(step) or {}).get("energy_j"), "the step's energy", 60
        )
        figure = accounting.query([step])[step]
    finally:
        os.environ["PATH"] = path
        for node in ("n1", "n2"):
            slurm.set_power(node, slurm.settings.node_power_w)
    assert figure["energy_j"] == pytest.approx(800 * 4, rel=0.5)
    assert figure["energy_j"] >= 800 * 2.5


def test_a_killed_owner_leaves_nothing_running(tmp_path, slurm_session):
    state = Path(f"/tmp/slurm-testbed-killed-{os.getpid()}")
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout.readline() == "up\n"
        assert len(processes_of(state)) > 3
        owner.send_signal(signal.SIGKILL)
    slurm_session.wait_for(lambda: not processes_of(state), "the end of its processes", 10)
    slurm_session.wait_for(lambda: not state.exists(), "the end of its files", 10)
    assert slurm_session.holder_pid()


def test_what_a_power_cut_leaves_is_removed_by_the_next_session(slurm_session):
    state = Path(f"/tmp/slurm-testbed-left-{os.getpid()}")
    (state / "etc").mkdir(parents=True)
    (state / "holder.pid").write_text("4000000")
    remove_leftovers()
    assert not state.exists() and slurm_session.holder_pid() and slurm_session.state.exists()


def refuse_namespaces(folder: Path, monkeypatch) -> None:
    (folder / "unshare").write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2; exit 1\n")
    (folder / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def withhold_packages(folder: Path, monkeypatch) -> None:
    (folder / "apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package slurmctld' >&2; exit 100\n")
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(packages, "PREFIX", folder / "slurm")
    monkeypatch.setattr(packages, "_STAMP", folder / "slurm/unpacked")
    packages.obtain.cache_clear()


@pytest.mark.parametrize(
    ("hinder", "words"),
    [
        (refuse_namespaces, r"namespaces are refused here .*not permitted.*; run as root"),
        (withhold_packages, r"could not fetch .*Unable to locate.*python -m tests.slurm.packages"),
    ],
)
def test_where_it_cannot_run_its_tests_are_skipped_and_in_ci_they_fail(tmp_path, monkeypatch, hinder, words):
    before = set(Path("/tmp").glob("slurm-testbed-*"))
    hinder(tmp_path, monkeypatch)
    for ci, outcome in (("", pytest.skip.Exception), ("true", pytest.fail.Exception)):
        monkeypatch.setenv("CI", ci)
        with pytest.raises(outcome, match=words):
            next(lend())
    packages.obtain.cache_clear()
    assert set(Path("/tmp").glob("slurm-testbed-*")) <= before


def test_another_cluster_ends_without_a_trace(tmp_path, slurm_session):
    state = Path(f"/tmp/slurm-testbed-other-{os.getpid()}")
    before = machine()
    with Cluster(settings.Settings(nodes=1, accounting=False), state, owned=True) as other:
        assert other.run("srun", "hostname", cwd=tmp_path) == "n1\n"
        assert slurm_session.run("hostname", cwd=tmp_path) != "n1\n"
        assert machine() == before
    assert not state.exists() and not processes_of(state) and machine() == before


def machine() -> tuple[str, ...]:
    """What a cluster could leave on the machine: mounts, users, host name, network devices."""
    files = ("/proc/self/mounts", "/etc/passwd", "/etc/group", "/etc/hosts", "/proc/sys/kernel/hostname")
    return (*(Path(path).read_text() for path in files), *sorted(os.listdir("/sys/class/net")))
