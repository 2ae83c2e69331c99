"""Rendered pages of made-up campaigns, one rendering per kind for all tests here."""

import fabricated_campaign
import pytest
from jouleline.report import inputs, page


@pytest.fixture(scope="session")
def estimated(tmp_path_factory):
    """Inputs of a campaign whose energies are estimated."""
    return inputs.load(**fabricated_campaign.write(tmp_path_factory.mktemp("estimated")))


@pytest.fixture(scope="session")
def estimated_page(estimated):
    return page.render(estimated)


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """Inputs of a campaign whose energies come from a counter."""
    return inputs.load(
        **fabricated_campaign.write(tmp_path_factory.mktemp("measured"), source="nvml_counter")
    )


@pytest.fixture(scope="session")
def measured_page(measured):
    return page.render(measured)


@pytest.fixture(scope="session")
def empty_page(tmp_path_factory):
    return page.render(inputs.load(**fabricated_campaign.write_empty(tmp_path_factory.mktemp("empty"))))
