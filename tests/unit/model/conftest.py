"""Tables for the tests of the model. The module of tables is importable by name."""

import pytest
import synthetic


@pytest.fixture(scope="session")
def runs():
    """Sixty synthetic runs of six strategies on one device."""
    return synthetic.table()
