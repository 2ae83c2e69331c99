"""For all tests: how they share the machine, and what they share with each other."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from fake_nvml.driver import FakeNode, build

# A shell lets its background jobs ignore SIGINT. Then snakemake would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that run side by side would wait for each other's measurements.
os.environ.setdefault("JOULELINE_DEVICE_LOCK", "")

TESTS = Path(__file__).resolve().parent
# The workers of this process share what forks.
os.environ.setdefault(forked.RUN, str(os.getpid()))
# The machine of a test may be busy. This must not matter to what is tested, so this fake machine is idle.
os.environ.setdefault("JOULELINE_PROC_STAT", str(TESTS / "helpers" / "idle_stat"))
# Files whose tests use the Slurm cluster. There is only one cluster, so they run one after the other.
SLURM = (
    *("test_slurm_campaign", "test_slurm_cluster", "test_slurm_faults", "test_slurm_neighbours"),
    *("test_slurm_real_faults", "test_slurm_users"),
)
# Long files whose tests share little, and use no job name twice. Each test runs by itself; otherwise one worker would
# still run them at the end.
APART = (
    *("test_interruptions", "test_matrix", "test_measure_run_nodes"),
    *("test_faults_process", "test_faults_state", "test_scratch", "test_rapl", "test_estimate"),
)
# What takes longest starts first. Else the last worker would run alone at the end.
FIRST = (
    *("workflow/test_interruptions", "workflow/test_reference", "cuda/test_matrix", "workflow/test_pipeline"),
    *("workflow", "scripts/test_measure_run", "cuda", "scripts", "unit/measure"),
)


def pytest_collection_modifyitems(items):
    """Move what takes longest to the front."""
    places = [*FIRST, ""]
    items.sort(
        key=lambda item: (
            item.path.stem not in SLURM,
            next(n for n, place in enumerate(places) if str(item.path).startswith(str(TESTS / place))),
        )
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config, specs):
    """Some tests import torch, DeepSpeed and Snakemake. Import these once for all workers."""
    if config.args_source is config.ArgsSource.TESTPATHS:
        from execnet import XSpec

        specs[:] = [
            XSpec(f"{spec}//python={sys.executable} {TESTS / 'helpers' / 'worker.py'}") for spec in specs
        ]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file on one worker, because they share what they build, with a few exceptions. Also those of
    the Slurm cluster."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            stem = Path(file).stem
            return "slurm" if stem in SLURM else nodeid if stem in APART else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: the folder that `make(folder)` fills. The first worker that asks for it makes it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

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
