"""What programs that train need."""

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def training_environment() -> dict[str, str]:
    """Environment of a program that forks ranks on the CPU."""
    names = {
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**os.environ, **names, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
