"""Two users in one checkout: a real campaign that one leaves and the other takes up, on a real Slurm."""

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from tests.slurm.campaign import SNAPPY, Campaign
from tests.slurm.cluster import Cluster
from tests.workflow.checkout import Checkout
from tests.workflow.slurm_runs import make_checkout, runs_of, start

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.long,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users"),
]
SOMEBODY, GROUP = 65534, 54321
ROWS = [{"layers": layers, "gpus_per_node": 4} for layers in (1, 2, 3)]


# Python may lie in a home that is closed to others: among the cluster's mounts it is open, with nothing but Python.
OPEN = """set -e
mkdir -p "$kept" && mount --bind "$python" "$kept" && mount -t tmpfs -o mode=755 none "$closed"
mkdir -p "$python" && mount --bind "$kept" "$python"
"""
CLOSE = 'umount "$python" "$closed" "$kept"'


def python_for_all(cluster: Cluster, script: str) -> None:
    above = Path(sys.base_prefix).parents
    closed = [folder for folder in above if not folder.stat().st_mode & stat.S_IXOTH]
    if closed:
        names = {"python": sys.base_prefix, "closed": str(closed[-1]), "kept": str(cluster.state / "python")}
        cluster._inside(["sh", "-c", script], os.environ | names)


@pytest.fixture
def shared(slurm):
    """A folder of a group of both users, and a cluster whose tools both can use."""
    before, mask = slurm.state.stat().st_mode, os.umask(0o002)  # which jobs inherit
    slurm.state.chmod(0o755)
    python_for_all(slurm, OPEN)
    folder = Path(tempfile.mkdtemp())
    (folder / "home").mkdir()
    for path in (folder, folder / "home"):
        os.chown(path, 0, GROUP)
        path.chmod(0o2775)
    yield folder
    os.umask(mask)
    slurm.run("scancel", "--user=0", f"--user={SOMEBODY}", check=False)
    slurm.wait_for(lambda: not slurm.run("squeue", "-h"), "an empty queue", 60)
    python_for_all(slurm, CLOSE)
    slurm.state.chmod(before)
    shutil.rmtree(folder, ignore_errors=True)


class Other(Campaign):
    """Snakemake as another user starts it, on a machine of the cluster."""

    def __init__(self, cluster: Cluster, checkout: Checkout, *arguments: str):
        inside = f"/proc/{cluster.holder_pid()}/ns"
        words = ["nsenter", f"--net={inside}/net", f"--mount={inside}/mnt", f"--wd={checkout.root}"]
        words += ["setpriv", f"--reuid={SOMEBODY}", f"--regid={GROUP}", "--clear-groups"]
        words += [
            "env",
            "-u",
            "USER",
            "-u",
            "LOGNAME",
            f"HOME={checkout.root.parent}/home",
            sys.executable,
            "-m",
            "snakemake",
        ]
        words += ["--profile", "slurm", *SNAPPY, *arguments, "--configfile", "campaign.yaml"]
        self.words = words
        super().__init__(cluster, checkout.root)

    def command(self, binaries: Path, arguments: tuple[str, ...]) -> list[str]:
        return self.words


def of_all_users(cluster: Cluster, checkout: Checkout) -> dict[str, list[str]]:
    """{row: users of its jobs} in the order of submission."""
    jobs: dict[str, list[str]] = {}
    for line in cluster.run("squeue", "-h", "--states=all", "-S", "i", "-o", "%Z|%k|%U").splitlines():
        folder, comment, user = line.split("|")
        if folder == str(checkout.root) and comment.startswith("rule_measure_run"):
            jobs.setdefault(comment.rpartition(":")[0], []).append(user)
    return jobs


def test_one_takes_up_what_the_other_has_left(slurm, shared):
    checkout = make_checkout(shared / "checkout", 45, *ROWS, window_max_s=60)
    with start(slurm, checkout, "measurements") as first:
        runs = checkout.root / "results/cluster/runs"
        first.until(lambda: list(runs.glob("*/raw/node-0/training")), "a row that trains", 200)
        with Other(slurm, checkout, "measurements") as second:
            assert second.wait(120) != 0  # while the first one runs
        assert "LockException" in second.said() and "Traceback" not in second.said(), second.said()
        first.kill()
    with Other(slurm, checkout, "--unlock") as second:
        assert second.wait(60) == 0, second.said()
    with Other(slurm, checkout, "measurements") as second:
        assert second.wait(400) == 0, second.said()
    assert "of user 0" in second.said() and "Traceback" not in second.said(), second.said()
    assert len(runs_of(checkout)) == len(ROWS)
    jobs = of_all_users(slurm, checkout)
    assert len(jobs) == len(ROWS) and all(len(users) == 1 for users in jobs.values()), jobs


def test_each_has_a_campaign_of_their_own(slurm, shared):
    checkout = make_checkout(shared / "checkout", 2.0, ROWS[0])
    with start(slurm, checkout, "measurements") as first:
        names = ("--config", "campaign=theirs", "--", "measurements")
        with Other(slurm, checkout, *names) as second:
            assert second.wait(400) == 0, second.said()
        assert first.wait(400) == 0, first.said()
    for name in ("cluster", "theirs"):
        (run,) = (checkout.root / f"results/{name}/runs").glob("*/run.json")
        assert run.stat().st_uid == (0 if name == "cluster" else SOMEBODY)
