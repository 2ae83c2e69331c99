"""Real runs of the pipeline on the test cluster: a campaign of tiny rows, and how they ended."""

import json
import re

from jouleline.measure.raw.samples import read_samples

from tests.slurm.campaign import SNAPPY, Campaign
from tests.slurm.cluster import Cluster
from tests.workflow.checkout import Checkout

TINY = {"vocab_size": 512, "seq_len": 32, "micro_batch": 4, "hidden": 64, "heads": 2, "intermediate": 128}
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
    """Samples of an interrupted run: one file if the sidecar was told to end, segments if it was killed."""
    node = folder / "raw/node-0"
    return read_samples(node).to_pylist()
