"""The examples of docs/architecture.md run as they are written."""

import re

import fabricated_campaign
import numpy as np
import pytest
import synthetic
import yaml
from paths import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def example(topic: str, language: str = "python") -> str:
    return re.search(rf"\*\*{topic}\*\*.*?```{language}\n(.*?)```", TEXT, re.S)[1]


def run(topic: str) -> dict:
    names: dict = {}
    exec(compile(example(topic), topic, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    """Remove what an example adds when its test ends."""
    from jouleline.measure.meters import choice
    from jouleline.model.fit import registry
    from jouleline.report import page

    for owner, name in ((choice, "METERS"), (registry, "LAWS")):
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))
    monkeypatch.setattr(page, "SECTIONS", page.SECTIONS)


def test_a_meter():
    assert run("A meter")["meter"].name == "wattmeter"


def test_a_law_is_fitted_and_predicts():
    from jouleline.model.base import Context
    from jouleline.model.features import Data

    model, data = run("A law")["model"], Data.of(synthetic.table(rows=20))
    (state,) = model.fit(data, np.ones((1, len(data))), Context())
    (prediction,) = model.predict(state, data, Context())
    ratio = prediction.step_energy_j.sum() / data.step_energy_j.sum()
    assert prediction.identified.all() and 0.5 < ratio < 2


def test_a_section_is_on_the_page(tmp_path):
    run("A section of the report")
    from jouleline.report import inputs, page

    text = page.render(inputs.load(**fabricated_campaign.write(tmp_path, source="nvml_counter")))
    assert "runs were measured." in text


def test_a_site_is_a_profile_of_known_keys():
    site = yaml.safe_load(example("A site", "yaml"))
    assert site["default-resources"] == {"slurm_account": "proj42", "slurm_partition": "booster"}
