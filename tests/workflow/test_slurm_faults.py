"""Every fault of a cluster, on a real Slurm: the workflow ends, everything is made, nothing runs twice needlessly."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.slurm.campaign import SNAPPY, Campaign
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

SNAKEFILE = Path(__file__).parent / "slurm_faults" / "Snakefile"
SETTINGS = ["--executor", "slurm", "--jobs", "20", "--keep-going", "--rerun-incomplete"]
SETTINGS += ["--slurm-no-requeue", "--slurm-status-command", "squeue", *SNAPPY]


def start(
    cluster: Cluster,
    folder: Path,
    *names: str,
    retries: int = 1,
    version: int = 1,
    options: tuple[str, ...] = (),
) -> Campaign:
    (folder / "go").mkdir(exist_ok=True)
    targets = " ".join(f"out/{name}" for name in names)
    arguments = ["--snakefile", str(SNAKEFILE), *SETTINGS, "--retries", str(retries), *options]
    return Campaign(cluster, folder, *arguments, "--config", f"targets={targets}", f"version={version}")


def starts(folder: Path, name: str) -> list[str]:
    """Slurm job ids of the starts of a job, in order."""
    file = folder / "starts" / name
    return file.read_text().split() if file.exists() else []


def go(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "go" / name).touch()


def node_of(cluster: Cluster, job: str) -> str:
    return cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip()


def test_every_fault_is_survived_and_costs_one_more_attempt(slurm, tmp_path):
    """Fails, out of memory, cancelled, time limit, preempted, node dies; slurmdbd and slurmctld restart meanwhile."""
    hit = ["cancelled", "late", "preempted", "nodeless"]
    faulty = [
        "flaky-failing",
        "greedy-memory",
        "gated-cancelled",
        "gated-late",
        "low-preempted",
        "alone-nodeless",
    ]
    with start(slurm, tmp_path, "gated-calm", *faulty) as campaign:
        campaign.until(lambda: all(starts(tmp_path, name) for name in ["calm", *hit]), "first starts", 90)
        slurm.halt("slurmdbd")
        first = {name: starts(tmp_path, name)[0] for name in hit}
        crashed = node_of(slurm, first["nodeless"])
        slurm.crash(crashed)
        slurm.run("scancel", first["cancelled"])
        slurm.run("scontrol", "update", f"jobid={first['late']}", "endtime=now")
        wanted = node_of(slurm, first["preempted"])
        # asks for a GPU of the low job's node, in a partition of higher priority
        urgent = ["sbatch", "-p", "gpu", "-w", wanted, "--gres=gpu:1", "-o", "/dev/null", "--wrap", "sleep 1"]
        slurm.run(*urgent, cwd=tmp_path)
        campaign.until(lambda: starts(tmp_path, "memory"), "start of the greedy job")
        campaign.until(lambda: all(len(starts(tmp_path, name)) == 2 for name in hit), "second starts", 120)
        slurm.halt("slurmctld")
        time.sleep(3)  # a status check without an answer
        slurm.start("slurmdbd")
        slurm.start("slurmctld")
        go(tmp_path, "calm", *hit)
        assert campaign.wait(120) == 0, campaign.said()
    assert {name: len(starts(tmp_path, name)) for name in [*hit, "failing", "memory"]} == dict.fromkeys(
        [*hit, "failing", "memory"], 2
    )
    assert len(starts(tmp_path, "calm")) == 1
    assert all((tmp_path / "out" / name).exists() for name in ["gated-calm", *faulty])
    said = campaign.said()
    assert (
        "due to a node failure" in said
        and "as PREEMPTED" in said
        and "'CANCELLED'" in said
        and "'TIMEOUT'" in said
    )


def test_a_killed_controller_finds_its_jobs_again(slurm, tmp_path):
    """A job ends while no controller lives, and two still run: none starts again. A job of an older command does.

    Two are grouped, and groups that are not connected have one name.
    """
    targets = ["gated-ends", "gated-runs", "alone-runs-too", "versioned-old"]
    names = [target.split("-", 1)[1] for target in targets]
    groups = ("--groups", "gated=pair")
    with start(slurm, tmp_path, *targets, options=groups) as campaign:
        campaign.until(lambda: all(starts(tmp_path, name) for name in names), "starts", 90)
        campaign.kill()
    go(tmp_path, "ends")
    slurm.wait_for(lambda: slurm.jobs()[starts(tmp_path, "ends")[0]] == "COMPLETED", "the orphan's end", 30)
    unlocking = ["--snakefile", str(SNAKEFILE), "--unlock", "--config", "targets=out/gated-ends"]
    with Campaign(slurm, tmp_path, *unlocking) as unlock:
        assert unlock.wait(60) == 0, unlock.said()
    with start(slurm, tmp_path, *targets, version=2, options=groups) as campaign:
        campaign.until(lambda: campaign.said().count("waiting for that one") == 2, "adoptions", 90)
        campaign.until(lambda: len(starts(tmp_path, "old")) == 2, "second start of the changed job", 90)
        go(tmp_path, "runs", "runs-too", "old")
        assert campaign.wait(90) == 0, campaign.said()
    assert [len(starts(tmp_path, name)) for name in names] == [1, 1, 1, 2]
    assert slurm.jobs()[starts(tmp_path, "old")[0]] == "CANCELLED"
    assert (tmp_path / "out/versioned-old").read_text() == "2\n"
    assert all((tmp_path / "out" / name).exists() for name in targets)


def test_job_arrays_are_refused(slurm, tmp_path):
    arguments = ["--snakefile", str(SNAKEFILE), *SETTINGS, "--slurm-array-jobs", "all"]
    with Campaign(slurm, tmp_path, *arguments, "--config", "targets=out/gated-a") as campaign:
        assert campaign.wait(60) != 0
    assert "leave it out" in campaign.said()
    assert not os.path.exists(tmp_path / "starts")


def test_a_group_that_cannot_be_submitted_fails_and_says_why(slurm, tmp_path):
    """Without the answer the executor stumbles over its own message, and the workflow waits for ever."""
    options = ("--groups", "gated=pair", "--default-resources", "slurm_account=nobodys")
    with start(slurm, tmp_path, "gated-a", retries=0, options=options) as campaign:
        assert campaign.wait(60) == 1
    assert "The given account nobodys appears to be invalid" in campaign.said()
    assert not starts(tmp_path, "a")


@pytest.mark.long
def test_a_submission_that_times_out_but_was_heard_starts_nothing_twice(slurm, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(
        f"""#!/bin/sh
        {slurm.state}/bin/sbatch "$@" && test -e heard && exit
        touch heard; echo "sbatch: error: Batch job submission failed: Socket timed out" >&2; exit 1"""
    )
    (tmp_path / "bin/sbatch").chmod(0o755)
    with start(slurm, tmp_path, "gated-a") as campaign:
        campaign.until(lambda: "waiting for that one" in campaign.said(), "adoption", 60)
        go(tmp_path, "a")
        assert campaign.wait(60) == 0, campaign.said()
    assert "Socket timed out" in campaign.said() and len(starts(tmp_path, "a")) == 1


@pytest.mark.long
def test_an_interrupt_ends_what_waits_for_slurmctld(slurm, tmp_path):
    slurm.halt("slurmctld")
    with start(slurm, tmp_path, "gated-a", "gated-b", "gated-c") as campaign:
        campaign.until(lambda: "submissions wait" in campaign.said(), "word of the outage", 60)
        campaign.process.send_signal(signal.SIGINT)
        assert campaign.wait(90) != 0


@pytest.mark.long
def test_a_job_that_always_fails_ends_the_workflow_with_its_log(slurm, tmp_path):
    with start(slurm, tmp_path, "gated-doomed", retries=0) as campaign:
        campaign.until(lambda: starts(tmp_path, "doomed"), "start", 90)
        slurm.run("scancel", starts(tmp_path, "doomed")[0])
        assert campaign.wait(60) == 1
    assert "rule_gated/doomed" in campaign.said() and not (tmp_path / "out/gated-doomed").exists()
