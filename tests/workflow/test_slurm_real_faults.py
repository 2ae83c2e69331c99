"""Every fault of a cluster during real runs, under the literal `snakemake --profile slurm`.

After each fault: the user is told, nothing half-written counts, finished runs stay, no row is measured twice
needlessly.
"""

import json
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.campaign import Campaign
from tests.slurm.cluster import Cluster
from tests.workflow.checkout import Checkout
from tests.workflow.slurm_runs import jobs_of, kept_samples, make_checkout, name_of, runs_of, shape_of, start

pytestmark = pytest.mark.slurm

WHOLE = {"run.json", "samples.parquet", "markers.parquet"}
TWO_NODES = {"layers": 4, "nodes": 2, "zero_stage": 1}


@pytest.fixture
def make(small_dataset, tmp_path):
    """Make a checkout whose data set is there."""

    def checkout_of(window_s: float, *rows: dict, **protocol) -> Checkout:
        checkout = make_checkout(tmp_path / "checkout", window_s, *rows, **protocol)
        checkout.give_dataset(small_dataset)
        return checkout

    return checkout_of


def folders_of(checkout: Checkout) -> dict[str, Path]:
    """The runs' folders by short name, such as L2-N2x1."""
    return {name_of(path.name): path for path in (checkout.root / "results/cluster/runs").glob("*")}


def strike(campaign: Campaign, checkout: Checkout, faults: dict[str, Callable[[], object]]) -> None:
    """Hit each run with its fault as soon as all its nodes train."""
    left = dict(faults)

    def strike_next() -> bool:
        for name, folder in folders_of(checkout).items():
            nodes = int(name.split("-N")[1].split("x")[0])
            if name in left and len(list(folder.glob("raw/node-*/training"))) == nodes:
                left.pop(name)()
        return not left

    campaign.until(strike_next, f"training of {', '.join(faults)}", 180)


def kill_a_rank(checkout: Checkout, name: str) -> None:
    """SIGKILL to a rank of a run; ranks are forks of their agent."""
    of_run: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode().split("\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if folders_of(checkout)[name].name in words and "python" in Path(words[0]).name:
            of_run[int(path.name)] = parent
    ranks = [pid for pid, parent in of_run.items() if parent in of_run]
    os.kill(ranks[0], signal.SIGKILL)


def second_node(cluster: Cluster, job: str) -> str:
    """The node of a two-node job on which its batch script does not run."""
    shape = shape_of(cluster, job)
    nodes = cluster.run("scontrol", "show", "hostnames", shape["NodeList"]).split()
    (other,) = set(nodes) - {shape["BatchHost"]}
    return other


def assert_whole(checkout: Checkout, *names: str) -> None:
    """These runs are finished and ok, and leave nothing but their three files."""
    runs = runs_of(checkout)
    assert {name: run["status"] for name, run in runs.items()} == dict.fromkeys(names, "ok")
    for folder in folders_of(checkout).values():
        assert {path.name for path in folder.iterdir()} == WHOLE


def test_a_campaign_goes_on_whatever_hits_it(slurm, tmp_path):
    """From the data set on, in one command: rows of one node and of two, as many ranks as asked, no row in two jobs.

    Accounting is down; a rank is killed, a run cancelled, and the second node of a run dies.
    """
    rows = [{"layers": 1, "gpus_per_node": 2, "zero_stage": 1}, {"layers": 2}, {"layers": 3}, TWO_NODES]
    checkout = make_checkout(tmp_path / "checkout", 5, *rows)
    with start(slurm, checkout, "measurements") as campaign:
        campaign.until(lambda: len(jobs_of(slurm, checkout)) == 4, "four submissions", 180)
        first = {name: ids[0] for name, ids in jobs_of(slurm, checkout).items()}
        slurm.halt("slurmdbd")
        hits = {
            "L1-N1x2": lambda: kill_a_rank(checkout, "L1-N1x2"),
            "L2-N1x1": lambda: slurm.run("scancel", first["L2-N1x1"]),
            "L4-N2x1": lambda: slurm.crash(second_node(slurm, first["L4-N2x1"])),
        }
        strike(campaign, checkout, hits)
        campaign.until(lambda: campaign.said().count("Trying to restart job") == 3, "three retries", 120)
        assert not hits.keys() & runs_of(checkout).keys()
        record = json.loads((folders_of(checkout)["L1-N1x2"] / "run.failed.json").read_text())
        assert record["reason"] == "rank_killed"
        assert campaign.wait(240) == 0, campaign.said()
    assert_whole(checkout, *hits, "L3-N1x1")
    starts = jobs_of(slurm, checkout)
    assert {name: len(ids) for name, ids in starts.items()} == {**dict.fromkeys(hits, 2), "L3-N1x1": 1}
    assert_told(
        campaign,
        (first["L1-N1x2"], "failed, SLURM status is: 'FAILED'"),
        (first["L2-N1x1"], "failed, SLURM status is: 'CANCELLED'"),
        (first["L4-N2x1"], "failed due to a node failure"),
    )
    assert re.search(
        r"\(rank_killed\): rank \d was killed by signal 9", campaign.said()
    )  # the job's log is shown
    runs = runs_of(checkout)
    assert {name: run["training"]["world_size"] for name, run in runs.items()} == {
        **{"L1-N1x2": 2, "L2-N1x1": 1, "L3-N1x1": 1, "L4-N2x1": 2}
    }
    assert len({node["host"] for node in runs["L4-N2x1"]["nodes"]}) == 2
    shapes = {name: shape_of(slurm, ids[-1]) for name, ids in starts.items()}
    assert {name: (s["NumNodes"], s["NumTasks"], s["TresPerNode"]) for name, s in shapes.items()} == {
        **dict.fromkeys(("L2-N1x1", "L3-N1x1"), ("1", "1", "gres:gpu:1")),
        "L1-N1x2": ("1", "1", "gres:gpu:2"),
        "L4-N2x1": ("2", "2", "gres:gpu:1"),
    }


def assert_told(campaign: Campaign, *endings: tuple[str, str]) -> None:
    """The user read how these jobs ended."""
    for job, words in endings:
        assert f"SLURM-job '{job}' {words}" in campaign.said()


@pytest.mark.long
def test_interrupted_runs_keep_their_samples_and_nothing_finished_is_lost(slurm, make):
    """Time limit, cancellation and a dead first node, without retries; then the same command again."""
    # Slurm looks for those beyond their time limit every 30 s.
    checkout = make(45, {"layers": 1}, {"layers": 2}, {"layers": 3}, TWO_NODES, window_max_s=60)
    with start(slurm, checkout, "measurements", "--retries", "0") as campaign:
        campaign.until(lambda: len(jobs_of(slurm, checkout)) == 4, "four submissions", 120)
        jobs = {name: ids[-1] for name, ids in jobs_of(slurm, checkout).items()}
        hits = {
            "L1-N1x1": lambda: slurm.run("scontrol", "update", f"jobid={jobs['L1-N1x1']}", "endtime=now"),
            "L3-N1x1": lambda: slurm.run("scancel", jobs["L3-N1x1"]),
            "L4-N2x1": lambda: slurm.crash(shape_of(slurm, jobs["L4-N2x1"])["BatchHost"]),
        }
        campaign.until(lambda: len(sampled(checkout)) == 4, "samples of every run", 120)
        strike(campaign, checkout, hits)
        assert campaign.wait(240) == 1
    assert set(runs_of(checkout)) == {"L2-N1x1"}, campaign.said()
    assert_told(
        campaign,
        (jobs["L1-N1x1"], "failed, SLURM status is: 'TIMEOUT'"),
        (jobs["L3-N1x1"], "failed, SLURM status is: 'CANCELLED'"),
        (jobs["L4-N2x1"], "failed due to a node failure"),
    )
    assert "DUE TO TIME LIMIT" in campaign.said()
    for name, folder in folders_of(checkout).items():
        if name in hits:
            assert not WHOLE & {path.name for path in folder.iterdir()}
            assert len(kept_samples(folder)) > 20
    for name in (
        "L1-N1x1",
        "L3-N1x1",
    ):  # told to end: what was sampled is one whole file, and the record says why
        folder = folders_of(checkout)[name]
        assert (folder / "raw/node-0/samples.parquet").exists()
        assert json.loads((folder / "run.failed.json").read_text())["reason"] == "stopped"
    finished = folders_of(checkout)["L2-N1x1"] / "run.json"
    stamp = finished.stat().st_mtime_ns
    slurm.up()
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(600) == 0, campaign.said()
    assert_whole(checkout, "L1-N1x1", "L2-N1x1", "L3-N1x1", "L4-N2x1")
    assert finished.stat().st_mtime_ns == stamp
    starts = {name: len(ids) for name, ids in jobs_of(slurm, checkout).items()}
    assert starts == {**dict.fromkeys(hits, 2), "L2-N1x1": 1}


def sampled(checkout: Checkout) -> list[str]:
    """Runs of which samples are on the disk already."""
    return [
        name for name, folder in folders_of(checkout).items() if list(folder.glob("raw/node-0/samples/*"))
    ]


@pytest.mark.long
def test_memory_that_runs_out_is_a_failure_of_the_job_and_a_result_of_the_trainer(slurm, make):
    """Slurm kills a job that takes more than it asked for: it is retried. What the trainer cannot allocate is `oom`."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # A matrix larger than the machine's memory.
    large = {"layers": 2, "intermediate": 10**6, "hidden": 2 ** math.ceil(math.log2(memory / 4e6))}
    checkout = make(1, {"layers": 1}, large)
    limit = "measure_run:mem_mb=400 if attempt == 1 else 6000"
    with start(slurm, checkout, "measurements", "--set-resources", limit) as campaign:
        assert campaign.wait(240) == 0, campaign.said()
    runs = runs_of(checkout)
    assert {name: run["status"] for name, run in runs.items()} == {"L1-N1x1": "ok", "L2-N1x1": "oom"}
    assert runs["L2-N1x1"]["reason"] == "out_of_memory"
    assert {name: len(ids) for name, ids in jobs_of(slurm, checkout).items()} == dict.fromkeys(runs, 2)
    assert campaign.said().count("Trying to restart job") == 2
    assert campaign.said().count("exceeded memory limit") >= 2, campaign.said()


@pytest.mark.long
def test_a_killed_controller_measures_nothing_twice(slurm, make):
    """The runs in the queue when the controller dies are waited for by the next one, through an outage of slurmctld."""
    checkout = make(25, {"layers": 1}, {"layers": 2}, TWO_NODES, window_max_s=40)
    with start(slurm, checkout, "measurements") as campaign:
        campaign.until(lambda: len(jobs_of(slurm, checkout)) == 3, "three submissions", 120)
        campaign.kill()
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(60) == 1
    assert "--unlock" in campaign.said()
    with start(slurm, checkout, "--unlock") as unlock:
        assert unlock.wait(60) == 0, unlock.said()
    with start(slurm, checkout, "measurements") as campaign:
        campaign.until(lambda: campaign.said().count("waiting for that one") == 3, "three adoptions", 90)
        strike(campaign, checkout, {"L4-N2x1": lambda: slurm.halt("slurmctld")})
        campaign.until(lambda: "Slurm has not answered" in campaign.said(), "word of the outage")
        slurm.start("slurmctld")
        assert campaign.wait(240) == 0, campaign.said()
    assert_whole(checkout, "L1-N1x1", "L2-N1x1", "L4-N2x1")
    assert {name: len(ids) for name, ids in jobs_of(slurm, checkout).items()} == dict.fromkeys(
        runs_of(checkout), 1
    )


@pytest.mark.long
def test_an_interrupt_keeps_a_run_that_ended_since_slurm_was_asked(slurm, make):
    """The job is still about to end, and is cancelled with the others."""
    checkout = make(1, {"layers": 1}, {"layers": 2})
    with start(
        slurm, checkout, "measurements", "--slurm-init-seconds-before-status-checks", "100"
    ) as campaign:
        campaign.until(lambda: runs_of(checkout), "a whole run", 200)
        campaign.process.send_signal(signal.SIGINT)
        assert campaign.wait(120) == 1
    kept = runs_of(checkout)
    assert kept
    stamps = {path: path.stat().st_mtime_ns for path in checkout.root.glob("results/cluster/runs/*/run.json")}
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(240) == 0, campaign.said()
    assert_whole(checkout, "L1-N1x1", "L2-N1x1")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert all(len(jobs_of(slurm, checkout)[name]) == 1 for name in kept)
