"""Two users in one checkout, on a real Slurm: one leaves a campaign and the other continues it.

Neither is root. Only among the cluster's mounts do they have names, a group and a Python that they may read.
"""

import os
import shlex
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.slurm.campaign import SNAPPY, Campaign
from tests.slurm.cluster import Cluster, Unavailable
from tests.slurm.settings import Settings
from tests.workflow.checkout import Checkout
from tests.workflow.slurm_runs import make_checkout, name_of, runs_of

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.long,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can be two other users"),
]
ANN, BOB, GROUP = 54321, 54322, 54320
ROWS = [{"layers": layers, "gpus_per_node": 4} for layers in (1, 2)]

# Python may lie in a home that is closed to others: there it is open, with nothing but Python in it.
MOUNTS = """set -e
for file in passwd group; do cat /etc/$file etc/$file.more >etc/$file; mount --bind etc/$file /etc/$file; done
if [ -n "$closed" ]; then
  mkdir kept; mount --bind "$python" kept; mount -t tmpfs -o mode=755 none "$closed"
  mkdir -p "$python"; mount --bind kept "$python"
fi
"""


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes that know both users, and that both can use."""
    state = Path(tempfile.mkdtemp(prefix="slurm-testbed-"))
    cluster = Cluster(Settings(nodes=2, accounting=False), state, owned=True)
    try:
        cluster.up()
    except Unavailable as problem:
        pytest.skip(f"no Slurm test cluster: {problem}")
    users = (("ann", ANN), ("bob", BOB))
    (state / "etc/passwd.more").write_text(
        "".join(f"{name}:x:{number}:{GROUP}::{state}/{name}:/bin/sh\n" for name, number in users)
    )
    (state / "etc/group.more").write_text(f"lab:x:{GROUP}:ann,bob\n")
    closed = [path for path in Path(sys.base_prefix).parents if not path.stat().st_mode & stat.S_IXOTH]
    names = {"python": sys.base_prefix, "closed": str(closed[-1]) if closed else ""}
    # A node has the mounts of the moment when it was booted.
    for node in cluster.settings.node_names:
        cluster.crash(node)
    cluster._inside(["sh", "-c", f"cd {shlex.quote(str(state))} && {MOUNTS}"], os.environ | names)
    yield cluster.up()
    cluster.down()


@pytest.fixture
def folder():
    """A folder of the group of both."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def share(folder: Path) -> None:
    """What profiles/README.md says of several users of a checkout."""
    subprocess.run(["chgrp", "-R", str(GROUP), "."], cwd=folder, check=True)
    subprocess.run(["chmod", "-R", "g+rwXs", "."], cwd=folder, check=True)


def start(cluster: Cluster, user: int, checkout: Checkout, *arguments: str) -> Campaign:
    """Snakemake as a user starts it on a machine of the cluster."""
    home = checkout.root.parent / str(user)
    if not home.exists():
        home.mkdir(mode=0o700)
        os.chown(home, user, GROUP)
    words = [*cluster._enter("net", "mount", "pid"), f"--wd={checkout.root}"]
    words += ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups"]
    words += ["env", "-u", "USER", "-u", "LOGNAME", f"HOME={home}", "sh", "-c", 'umask 002; exec "$@"', "sh"]
    options = ["--configfile", "campaign.yaml", "--profile", "slurm", *SNAPPY, *arguments]
    return Campaign(cluster, checkout.root, *options, through=words)


def users_of(cluster: Cluster, checkout: Checkout) -> dict[str, list[str]]:
    """{campaign's row: users of its jobs} in the order of submission."""
    jobs: dict[str, list[str]] = {}
    for line in cluster.run("squeue", "-h", "--states=all", "-S", "i", "-o", "%Z|%k|%U").splitlines():
        where, comment, user = line.split("|")
        if where == str(checkout.root) and comment.startswith("rule_measure_run"):
            what = comment.rpartition(":")[2].partition(".")[0]
            jobs.setdefault(f"{name_of(comment)} {what}", []).append(user)
    return jobs


def test_one_takes_up_what_the_other_has_left_and_each_has_a_campaign(cluster, folder):
    checkout = make_checkout(folder / "checkout", 20, *ROWS, window_max_s=30)
    folder.chmod(0o755)
    share(checkout.root)
    runs = checkout.root / "results/cluster/runs"
    with start(cluster, ANN, checkout, "measurements") as first:
        first.until(lambda: list(runs.glob("*/raw/node-0/training")), "a row that trains", 300)
        with start(cluster, BOB, checkout, "measurements") as second:
            assert second.wait(120) != 0  # while the first one runs
        assert "LockException" in second.said() and "Traceback" not in second.said(), second.said()
        first.kill()
    with start(cluster, BOB, checkout, "--unlock") as second:
        assert second.wait(60) == 0, second.said()
    with start(cluster, BOB, checkout, "measurements") as second:
        own = ("--config", "campaign=theirs", "--", "smoke")
        with start(cluster, ANN, checkout, *own) as first:
            assert first.wait(400) == 0, first.said()
        assert second.wait(400) == 0, second.said()
    assert f"of user {ANN}: waiting for that one" in second.said(), second.said()
    assert "Traceback" not in first.said() + second.said()
    assert len(runs_of(checkout)) == len(ROWS)
    jobs = users_of(cluster, checkout)
    assert len(jobs) == 3 and all(users == [str(ANN)] for users in jobs.values()), jobs
    # What the one has finished and noted, the other goes on from.
    checkout.campaign["grid"]["rows"].append({"layers": 3, "gpus_per_node": 4})
    checkout.save()
    with start(cluster, ANN, checkout, "measurements") as first:
        assert first.wait(400) == 0, first.said()
    with start(cluster, BOB, checkout, "measurements") as second:
        assert second.wait(120) == 0 and "Nothing to be done" in second.said(), second.said()
    assert len(users_of(cluster, checkout)) == 4 and len(runs_of(checkout)) == 3


def test_what_one_closed_to_the_other_is_told_in_one_line(cluster, folder):
    checkout = make_checkout(folder / "checkout", 1.0, ROWS[0])
    folder.chmod(0o755)
    share(checkout.root)
    with start(cluster, ANN, checkout, "smoke") as first:
        assert first.wait(400) == 0, first.said()
    subprocess.run(["chmod", "-R", "go-rwx", ".snakemake/metadata"], cwd=checkout.root, check=True)
    with start(cluster, BOB, checkout, "smoke") as second:
        assert second.wait(120) == 1
    assert f"user {ANN} that you may not read or write" in second.said() and "umask 002" in second.said()
    assert "Traceback" not in second.said(), second.said()
