"""Neighbours: campaigns and users beside each other in one folder, limits of the site, and a user's variables.

On a real Slurm. Each test fails without the answers of jouleline.slurm (WITHOUT_ANSWERS=1).
"""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, Unavailable
from tests.slurm.settings import Settings
from tests.workflow.test_slurm_faults import go, start, starts

pytestmark = [pytest.mark.slurm, pytest.mark.long]
SOMEBODY = 65534


def fill(cluster: Cluster, folder: Path) -> str:
    """A job that has every node for itself, so that others wait. Returns its id."""
    words = ["sbatch", "--parsable", "-N", str(cluster.settings.nodes), "--exclusive", "-o", "/dev/null"]
    job = cluster.run(*words, "--wrap", "sleep 300", cwd=folder).strip()
    cluster.wait_for(lambda: cluster.jobs()[job] == "RUNNING", "a full cluster", 30)
    return job


def queued(cluster: Cluster, folder: Path, name: str) -> list[str]:
    """Jobs from a folder that wait or run, by a word of their comment, in order of submission."""
    lines = cluster.run("squeue", "-h", "-S", "i", "-o", "%i|%Z|%k").splitlines()
    return [line.split("|")[0] for line in lines if line.split("|")[1] == str(folder) and name in line]


def submitted(campaign, count: int = 1) -> bool:
    return campaign.said().count("has been submitted with SLURM jobid") >= count


def test_a_second_snakemake_that_ends_leaves_the_first_ones_waiting_jobs_alone(slurm, tmp_path, monkeypatch):
    """With variables around that hide jobs from squeue, and change what a job is."""
    blocker = fill(slurm, tmp_path)
    for name, value in {"SQUEUE_PARTITION": "scavenge", "SQUEUE_NAMES": "nobody", "SBATCH_GPUS": "4"}.items():
        monkeypatch.setenv(name, value)
    with start(slurm, tmp_path, "gated-first") as first:
        first.until(lambda: submitted(first), "the first submission")
        with start(slurm, tmp_path, "gated-second") as second:
            second.until(lambda: submitted(second), "the second submission")
            second.process.send_signal(signal.SIGINT)
            assert second.wait(120) != 0
        time.sleep(8)  # checks of the queue in the meantime
        slurm.run("scancel", blocker)
        go(tmp_path, "first")
        assert first.wait(90) == 0, first.said()
    assert len(starts(tmp_path, "first")) == 1 and not starts(tmp_path, "second")
    assert "Not passed on to Slurm's tools" in first.said() and "SQUEUE_NAMES" in first.said()


@pytest.fixture
def shared():
    """A folder that all users can write into: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (Path(folder), *(Path(folder) / name for name in ("out", "starts", "go"))):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        yield Path(folder)


def test_another_users_jobs_of_the_folder_are_waited_for_or_named(slurm, shared):
    """Jobs of the same command are waited for.

    For another command the job is refused with their user, and they stay.
    """
    blocker = fill(slurm, shared)
    with start(slurm, shared, "gated-same", "versioned-other") as campaign:
        campaign.until(lambda: submitted(campaign, 2), "submissions")
        lines = slurm.run("squeue", "-h", "-o", "%i|%k").splitlines()
        comments = dict(line.split("|") for line in lines if "rule_" in line)
        campaign.kill()
    slurm.run("scancel", *comments)
    theirs = {}
    for comment in comments.values():
        name = "same" if "gated" in comment else "other"
        rule = "gated" if name == "same" else "versioned"
        script = f"echo $SLURM_JOB_ID >> starts/{name}; until test -e go/{name}; do sleep 0.2; done; "
        script += f"date > out/{rule}-{name}"
        words = ["sbatch", "--parsable", f"--uid={SOMEBODY}", f"--gid={SOMEBODY}", "-D", str(shared)]
        words += ["--comment", comment, "-o", "/dev/null", "--wrap", script]
        theirs[name] = slurm.run(*words, cwd=shared).strip()
    slurm.run("scancel", blocker)
    with start(slurm, shared, "gated-same", options=("--unlock",)) as unlock:
        assert unlock.wait(60) == 0
    with start(slurm, shared, "gated-same", "versioned-other", retries=0, version=2) as campaign:
        campaign.until(
            lambda: f"as {theirs['same']} of user {SOMEBODY}" in campaign.said(), "the adoption", 60
        )
        campaign.until(
            lambda: f"user {SOMEBODY} has job {theirs['other']}" in campaign.said(), "the refusal", 60
        )
        assert slurm.jobs()[theirs["other"]] == "RUNNING"
        go(shared, "same")
        assert campaign.wait(90) == 1
    assert starts(shared, "same") == [theirs["same"]] and starts(shared, "other") == [theirs["other"]]
    slurm.run("scancel", *theirs.values())


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A cluster that takes two jobs of a user at a time, and whose other partition allows two minutes."""
    short = "PartitionName=short Nodes=ALL MaxTime=2 MaxMemPerNode=400 State=UP\n"
    settings = Settings(nodes=1, extra="AccountingStorageEnforce=limits,qos\n" + short)
    state = Path(f"/tmp/slurm-testbed-strict-{os.getpid()}")
    try:
        cluster = Cluster(settings, state, owned=True)
        cluster.up()
    except Unavailable as problem:
        pytest.skip(f"no Slurm test cluster: {problem}")
    cluster.run("sacctmgr", "-iQ", "modify", "user", "root", "set", "MaxSubmitJobs=2")
    yield cluster
    cluster.down()


def test_a_limit_of_submitted_jobs_costs_no_attempt(strict, tmp_path):
    names = [f"row{n}" for n in range(5)]
    with start(strict, tmp_path, *(f"gated-{name}" for name in names), retries=0) as campaign:
        campaign.until(lambda: "No more jobs may be submitted now" in campaign.said(), "the limit", 60)
        go(tmp_path, *names)
        assert campaign.wait(180) == 0, campaign.said()
    assert [len(starts(tmp_path, name)) for name in names] == [1] * 5
    assert campaign.said().count("No more jobs may be submitted now") <= 3


def test_what_could_never_start_is_told_before_anything_runs(strict, tmp_path):
    options = ("--default-resources", "slurm_partition=short")
    with start(strict, tmp_path, "gated-long", options=options) as campaign:
        assert campaign.wait(60) == 1
    said = campaign.said()
    assert "gated asks for 5 minutes, and partition short allows 2" in said.replace("gated long", "gated")
    assert (
        "asks for 500 MB, and partition short allows 400" in said
        and "--set-resources gated:mem_mb=..." in said
    )
    assert not strict.jobs() or not starts(tmp_path, "long")


def test_why_a_job_waits_for_somebody_is_told_once(slurm, tmp_path):
    blocker = fill(slurm, tmp_path)
    with start(slurm, tmp_path, "gated-held") as campaign:
        campaign.until(lambda: submitted(campaign), "submission")
        (job,) = queued(slurm, tmp_path, "gated")
        slurm.run("scontrol", "hold", job)
        slurm.run("scancel", blocker)
        campaign.until(lambda: "Slurm does not start gated held" in campaign.said(), "the reason", 60)
        time.sleep(6)
        slurm.run("scontrol", "release", job)
        go(tmp_path, "held")
        assert campaign.wait(90) == 0, campaign.said()
    assert campaign.said().count("JobHeld") == 1 and "holds it" in campaign.said()
