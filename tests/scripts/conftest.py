"""A small prepared dataset, made once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jouleline.measure.corpus import prepare


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    prepare("docstrings", 512, 0, folder / "dataset.parquet", folder / "tokenizer.json")
    return folder / "dataset.parquet"
