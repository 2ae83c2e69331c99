"""Tables for the model's tests, and their module importable by name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import synthetic


@pytest.fixture(scope="session")
def runs():
    """Sixty synthetic runs of six strategies on one device."""
    return synthetic.table()
