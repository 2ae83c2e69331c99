"""The pipeline itself on a real Slurm: `snakemake --profile slurm`, single-node and two-node rows, real ranks."""

import json
import re

import pytest
from jouleline.schemas import read_table
from jouleline.schemas.energy import SAMPLES
from jouleline.schemas.runs import RUNS

from tests.slurm.campaign import SNAPPY, Campaign
from tests.slurm.cluster import Cluster
from tests.workflow.checkout import Checkout

pytestmark = pytest.mark.slurm

TINY = {"vocab_size": 2048, "seq_len": 32, "micro_batch": 4, "hidden": 64, "heads": 2, "intermediate": 128}
QUICK = {"device": "cpu", "warmup_steps": 3, "warmup_max_steps": 6, "idle_s": 0.3, "eval_batches": 1}


def make_checkout(folder, window_s: float, *rows: dict, **protocol) -> Checkout:
    """A campaign of tiny rows on nodes with four (fake) GPUs, in a copy of the workflow."""
    campaign = {
        "campaign": "cluster",
        "node": {"gpus": 4, "gres": "gpu"},
        "protocol": {**QUICK, "window_s": window_s, "window_steps": 4, "calibration_s": 5, **protocol},
        "grid": {"defaults": TINY, "rows": list(rows)},
        "analysis": {"models": ["constant", "flops"], "splits": ["H0"], "headline": "flops", "shards": 2},
    }
    return Checkout(folder, campaign)


def start(cluster: Cluster, checkout: Checkout, *arguments: str) -> Campaign:
    return Campaign(
        cluster, checkout.root, "--profile", "slurm", *SNAPPY, *arguments, "--configfile", "campaign.yaml"
    )


def runs_of(checkout: Checkout) -> dict[str, dict]:
    """run.json of the finished runs, by strategy (N1x1, N2x1, ...) and layers."""
    found = {}
    for path in sorted((checkout.root / "results/cluster/runs").glob("*/run.json")):
        run = json.loads(path.read_text())
        found[name_of(run["run_id"])] = run
    return found


def name_of(run_id: str) -> str:
    """A short name of a run: layers and geometry, such as L2-N2x1."""
    return "-".join(re.search(r"(L\d+)-.*-(N\d+x\d+)-", run_id).groups())


def jobs_of(cluster: Cluster, checkout: Checkout) -> dict[str, list[str]]:
    """{run: Slurm ids} of a checkout's measurements that slurmctld still knows, in order of submission."""
    jobs: dict[str, list[str]] = {}
    for line in cluster.run("squeue", "-h", "--states=all", "-S", "i", "-o", "%i|%Z|%k").splitlines():
        job, folder, comment = line.split("|")
        if folder == str(checkout.root) and comment.startswith("rule_measure_run"):
            jobs.setdefault(name_of(comment), []).append(job)
    return jobs


def shape_of(cluster: Cluster, job: str) -> dict[str, str]:
    """What Slurm gave a job: fields of `scontrol show job`."""
    return dict(re.findall(r"(\w+)=(\S*)", cluster.run("scontrol", "show", "job", "-d", job)))


def kept_samples(folder) -> list[dict]:
    """Samples of an interrupted run: made one file by a sidecar that was told to end, parts of a killed one."""
    node = folder / "raw/node-0"
    files = [path for path in [node / "samples.parquet", *node.glob("samples/*.parquet")] if path.exists()]
    return [row for path in files for row in read_table(SAMPLES, path)]


def test_a_campaign_on_three_nodes(slurm, tmp_path):
    """A row of one node and a row of two, measured side by side, each by one agent per node; no row in two jobs."""
    rows = [{"layers": 1, "gpus_per_node": 2, "zero_stage": 1}, {"layers": 2, "nodes": 2, "zero_stage": 1}]
    checkout = make_checkout(tmp_path / "checkout", 0.5, *rows)
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(240) == 0, campaign.said()
    runs = runs_of(checkout)
    assert {name: run["status"] for name, run in runs.items()} == {"L1-N1x2": "ok", "L2-N2x1": "ok"}
    assert [run["training"]["world_size"] for run in runs.values()] == [2, 2]
    hosts = {node["host"] for run in runs.values() for node in run["nodes"]}
    assert len(hosts) == 3 and hosts < set(slurm.settings.node_names)
    jobs = jobs_of(slurm, checkout)
    assert {name: len(ids) for name, ids in jobs.items()} == {"L1-N1x2": 1, "L2-N2x1": 1}
    shapes = {name: shape_of(slurm, ids[0]) for name, ids in jobs.items()}
    asked = {name: (s["NumNodes"], s["NumTasks"], s["TresPerNode"]) for name, s in shapes.items()}
    assert asked == {"L1-N1x2": ("1", "1", "gres:gpu:2"), "L2-N2x1": ("2", "2", "gres:gpu:1")}


@pytest.mark.long
def test_faults_of_real_runs(slurm, tmp_path):
    """Time limit, cancellation and a dead node in mid-run, then the same command again.

    Nothing half-written is accepted, the samples up to the end are kept for diagnosis, only what failed is measured
    again, and the run that was finished is not.
    """
    two_nodes = {"layers": 2, "nodes": 2, "zero_stage": 1}
    rows = [{"layers": 1}, {"layers": 2}, {"layers": 3}, two_nodes]
    checkout = make_checkout(tmp_path / "checkout", 25, *rows, window_max_s=40)
    runs = checkout.root / "results/cluster/runs"
    with start(slurm, checkout, "measurements", "--retries", "0") as campaign:
        campaign.until(lambda: len(jobs_of(slurm, checkout)) == 4, "four submissions", 120)
        jobs = {name: ids[-1] for name, ids in jobs_of(slurm, checkout).items()}
        for hit in ("L1-", "L3-", "L2-*-N2x1"):
            parts = f"*{hit}*/raw/node-0/samples/*"
            campaign.until(lambda parts=parts: list(runs.glob(parts)), f"samples in {parts}", 120)
        slurm.run("scontrol", "update", f"jobid={jobs['L1-N1x1']}", "endtime=now")
        slurm.run("scancel", jobs["L3-N1x1"])
        slurm.crash(shape_of(slurm, jobs["L2-N2x1"])["BatchHost"])
        assert campaign.wait(240) == 1
    first = campaign.said()
    assert set(runs_of(checkout)) == {"L2-N1x1"}, first
    assert all(word in first for word in ("'TIMEOUT'", "'CANCELLED'", "node failure"))
    for folder in runs.glob("*"):
        interrupted = name_of(folder.name) != "L2-N1x1"
        assert (folder / "run.json").exists() != interrupted
        assert (folder / "samples.parquet").exists() != interrupted
        if interrupted:
            assert len(kept_samples(folder)) > 20
    finished = next(runs.glob("*L2*N1x1*")) / "run.json"
    stamp = finished.stat().st_mtime_ns
    slurm.up()
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(300) == 0, campaign.said()
    assert len(runs_of(checkout)) == 4 and all(run["status"] == "ok" for run in runs_of(checkout).values())
    assert finished.stat().st_mtime_ns == stamp
    jobs = {name: len(ids) for name, ids in jobs_of(slurm, checkout).items()}
    assert jobs == {"L1-N1x1": 2, "L3-N1x1": 2, "L2-N2x1": 2, "L2-N1x1": 1}


@pytest.mark.long
def test_a_killed_controller_measures_nothing_twice(slurm, tmp_path):
    """The runs in the queue when the controller dies are waited for by the next one."""
    checkout = make_checkout(tmp_path / "checkout", 15, {"layers": 1}, {"layers": 2}, window_max_s=30)
    with start(slurm, checkout, "measurements") as campaign:
        campaign.until(lambda: len(jobs_of(slurm, checkout)) == 2, "two submissions", 120)
        campaign.kill()
    with start(slurm, checkout, "--unlock") as unlock:
        assert unlock.wait(60) == 0, unlock.said()
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(240) == 0, campaign.said()
    assert campaign.said().count("waiting for that one") == 2
    jobs = jobs_of(slurm, checkout)
    assert {name: len(ids) for name, ids in jobs.items()} == {"L1-N1x1": 1, "L2-N1x1": 1}
    assert all(run["status"] == "ok" for run in runs_of(checkout).values())


@pytest.mark.long
def test_the_whole_campaign_with_its_report(slurm, tmp_path):
    """The demonstration's shapes, reduced, with two-node rows, down to the report, in few jobs."""
    rows = [{"layers": layers, "hidden": hidden, "heads": 2} for layers in (1, 2, 3) for hidden in (64, 128)]
    rows += [{"layers": layers, "nodes": 2, "zero_stage": stage} for layers in (1, 2) for stage in (1, 3)]
    checkout = make_checkout(tmp_path / "checkout", 0.5, *rows)
    with start(slurm, checkout) as campaign:
        assert campaign.wait(560) == 0, campaign.said()
    assert len(list((checkout.root / "results/cluster/runs").glob("*/run.json"))) == len(rows)
    assert (checkout.root / "results/cluster/report.html").stat().st_size > 10_000
    # Nodes of 400 W: Slurm's figure of a step is that times its nodes and seconds, which hold the window.
    for run in read_table(RUNS, checkout.root / "results/cluster/tables/runs.parquet"):
        assert run["slurm_energy_j"] > 400 * run["nodes"] * run["time_s"]
    # The rows; data set, calibration and idle power; tables and verdict; four fits.
    assert campaign.said().count("has been submitted with SLURM jobid") == len(rows) + 3 + 2 + 4

    # What Slurm measured is finished for every executor, and a change reruns what it touches and nothing else.
    for profile in ("slurm", "profiles/local"):
        assert checkout.planned("--profile", profile) == {}
    more = [
        "--profile",
        "slurm",
        "--set-resources",
        "measure_run:mem_mb=9999",
        "measure_run:slurm_partition=other",
    ]
    assert checkout.planned(*more) == {}
    checkout.campaign["grid"]["rows"].append({"layers": 4})
    checkout.save()
    planned = checkout.planned("--profile", "slurm")
    assert (
        len(planned["measure_run"]) == 3 and "measure_run_multinode" not in planned
    )  # three files of one run
    assert {"integrate_energy", "collect_runs", "fit_model", "render_report"} <= set(planned)
