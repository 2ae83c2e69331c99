"""For all tests: how they were started must not reach the programs that they start."""

import signal
from pathlib import Path

import pytest
from fake_nvml.driver import FakeNode, build

# A shell gives its background jobs a SIGINT that is ignored, and so would snakemake be deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The fake libraries, built once per session by gcc.
@pytest.fixture(scope="session")
def libraries(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def node(tmp_path, libraries):
    """Makes a node with so many fake GPUs."""
    return lambda gpus=1: FakeNode(tmp_path / "node", libraries, gpus)
