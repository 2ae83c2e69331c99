"""The fake libraries, built once per session by gcc."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from fake_nvml.driver import FakeNode, build


@pytest.fixture(scope="session")
def libraries(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def node(tmp_path, libraries):
    """Makes a node with so many fake GPUs."""
    return lambda gpus=1: FakeNode(tmp_path / "node", libraries, gpus)
