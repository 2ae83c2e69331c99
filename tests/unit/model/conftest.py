"""Tables for the model's tests, and their module importable by name."""

import pytest
import synthetic


@pytest.fixture(scope="session")
def runs():
    """Sixty synthetic runs of six strategies on one device."""
    return synthetic.table()
