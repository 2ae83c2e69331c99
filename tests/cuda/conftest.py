"""Nodes with fake GPUs that the real CUDA build of torch runs on."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_cuda import driver, install
from fake_cuda.driver import FakeCuda
from fake_nvml.driver import FakeNode


@pytest.fixture(scope="session")
def cuda_python() -> Path:
    """Python with the CUDA build of torch; where it cannot be had, CI fails and others skip."""
    try:
        return install.cuda_python()
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        reason = (
            f"NO TEST OF THE CUDA PATH: no CUDA build of torch could be installed into .venv-cuda: {said}"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cuda_libraries(once, cuda_python) -> Path:
    """The fake CUDA libraries, built by gcc against that torch."""
    return once("cuda", lambda folder: driver.build(folder, install.torch_libraries()))


@pytest.fixture
def gpus(tmp_path, libraries, cuda_libraries, cuda_python) -> Callable[[int], FakeCuda]:
    """Makes a node with so many fake GPUs."""

    def make(count: int = 1) -> FakeCuda:
        node = FakeNode(tmp_path / "node", libraries, count)
        return FakeCuda(tmp_path / "cuda", cuda_libraries, node, cuda_python)

    return make


@pytest.fixture(scope="session")
def datasets(small_dataset, source_dataset, image_dataset) -> dict[str, Path]:
    """The prepared data sets by name."""
    return {"docstrings": small_dataset, "source": source_dataset, "images": image_dataset}
