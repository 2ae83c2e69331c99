"""A small prepared dataset, made once."""

import os
import sys
from pathlib import Path

import pytest
from jouleline.measure.train.corpus import prepare


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    prepare("docstrings", 512, 0, folder / "dataset.parquet", folder / "tokenizer.json")
    return folder / "dataset.parquet"


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
