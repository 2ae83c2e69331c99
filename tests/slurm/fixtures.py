"""The pytest fixture that lends the test cluster: one per test session, ended with it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, Unavailable
from tests.slurm.settings import Settings

PREFIX = "slurm-testbed-"


def remove_leftovers() -> None:
    """State folders of clusters whose owner was killed: their processes ended with it, the folders stayed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder.stat().st_uid == os.getuid() and (folder / "holder.pid").exists():
            leftover = Cluster(state=folder)
            if not leftover.holder_pid():
                leftover.down()


def lend() -> Iterator[Cluster]:
    """A cluster of five nodes with accounting. Skips where it cannot run, and fails there in CI (CI=true)."""
    state = Path(tempfile.mkdtemp(prefix=PREFIX))  # short: sockets live in it
    try:
        remove_leftovers()
        cluster = Cluster(Settings(nodes=5), state, owned=True)
        cluster.up()
    except Unavailable as problem:
        shutil.rmtree(state)
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"the Slurm tests are required in CI: {problem}")
        pytest.skip(f"no Slurm test cluster: {problem}")
    try:
        yield cluster
    finally:
        cluster.down()


slurm_session = pytest.fixture(lend, scope="session", name="slurm_session")


@pytest.fixture
def slurm(slurm_session: Cluster) -> Iterator[Cluster]:
    """The session's cluster with every daemon up, every node booted and no job in its queue."""
    slurm_session.up()
    yield slurm_session
    slurm_session.start("slurmctld")
    jobs = slurm_session.run("squeue", "-h", "-o", "%i", check=False).split()
    slurm_session.run("scancel", *jobs, check=False)  # of all users
