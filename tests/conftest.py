"""For all tests: how they share the machine, and what they share with each other."""

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_nvml.driver import FakeNode, build

# A shell gives its background jobs a SIGINT that is ignored, and so would snakemake be deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that run side by side would wait for each other's measurements.
os.environ.setdefault("JOULELINE_DEVICE_LOCK", "")

TESTS = Path(__file__).resolve().parent
# Tests of real time: they run after the others, without heavy neighbours.
CLOCK = ("unit/measure/sidecar", "unit/measure/meters")
# Tests that start agents, ranks or Snakemake: `make test-fast` leaves them out.
SLOW = ("workflow", "scripts", "cuda")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests of a folder, and keep the tests of one file on one worker: they share what they build.

    The tests that borrow the Slurm cluster are one group, since there is one cluster.
    """
    for item in items:
        folder = item.path.parent.relative_to(TESTS).as_posix()
        if folder.startswith(CLOCK):
            item.add_marker("clock")
        if folder.startswith(SLOW):
            item.add_marker("slow")
        if not item.get_closest_marker("xdist_group"):
            group = "slurm" if "slurm_session" in item.fixturenames else str(item.path)
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: the folder that `make(folder)` fills, made by the first of all workers that asks for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def libraries(once) -> Path:
    """The fake libraries, built by gcc."""
    return once("libraries", build)


@pytest.fixture
def node(tmp_path, libraries):
    """Makes a node with so many fake GPUs."""
    return lambda gpus=1: FakeNode(tmp_path / "node", libraries, gpus)


@pytest.fixture(scope="session")
def small_dataset(once) -> Path:
    """A prepared dataset with a vocabulary of 512."""
    from jouleline.measure.train.corpus import prepare

    def make(folder: Path) -> None:
        prepare("docstrings", 512, 0, folder / "dataset.parquet", folder / "tokenizer.json")

    return once("dataset", make) / "dataset.parquet"


@pytest.fixture(scope="session")
def source_dataset(once) -> Path:
    """Source texts in a byte-level vocabulary of 512, for decoders."""
    from jouleline.measure.train.corpus import prepare

    def make(folder: Path) -> None:
        prepare("source", 512, 0, folder / "dataset.parquet", folder / "tokenizer.json")

    return once("source", make) / "dataset.parquet"


@pytest.fixture(scope="session")
def image_dataset(once) -> Path:
    """Modules as labelled images."""
    from jouleline.measure.train.corpus import prepare

    def make(folder: Path) -> None:
        prepare("images", 512, 0, folder / "dataset.parquet", folder / "tokenizer.json")

    return once("images", make) / "dataset.parquet"
