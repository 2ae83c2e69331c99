"""Campaign files: merging, checking, frozen defaults."""

import json
from pathlib import Path

import pytest
from jouleline import config, manual
from jouleline.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ROW = {"layers": 2, "hidden": 128, "heads": 4, "intermediate": 512, "seq_len": 64, "micro_batch": 8}


def load(**keys):
    return config.load({"campaign": "mine", "grid": {"rows": [ROW]}, **keys}, ROOT)


def refused(**keys):
    with pytest.raises(UserError) as caught:
        load(**keys)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "config/campaigns").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_campaign_that_is_shipped_is_good(path):
    campaign = config.load({"campaign": path.stem}, ROOT)
    assert campaign.name == path.stem and campaign.runs


def test_the_users_keys_lie_over_the_campaigns_file():
    campaign = config.load({"campaign": "demo", "protocol": {"window_s": 9}}, ROOT)
    assert campaign.protocol["window_s"] == 9 and campaign.protocol["warmup_steps"] == 4


def test_a_protocol_key_at_its_default_is_no_parameter():
    assert load(protocol={"period_ms": 20, "window_s": 3}).protocol_key == "{}"
    assert load(protocol={"window_s": 4}).protocol_key == load(protocol={"window_s": 4.0}).protocol_key


def test_all_problems_of_the_schema_are_told_at_once():
    message = refused(foo=1, results=3, analysis={"models": []})
    assert "3 problem(s)" in message
    assert (
        "unknown key foo; known are" in message
        and "results: must be string" in message
        and "analysis.models" in message
    )


def test_an_unknown_campaign_says_which_there_are():
    with pytest.raises(UserError, match=r"'nope' has no file .*known are .*demo"):
        config.load({"campaign": "nope"}, ROOT)


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ({"windows": 1}, "protocol.windows is not known"),
        ({"window_s": "long"}, "protocol.window_s must be like 3.0"),
        ({"period_ms": -1}, "protocol.period_ms"),
        ({"meter": "wattmeter"}, "choose from auto, nvml, rapl, estimate"),
    ],
)
def test_a_bad_protocol_is_refused(protocol, text):
    assert text in refused(protocol=protocol)


def test_schema_and_defaults_name_the_same_keys():
    properties = json.loads(config.SCHEMA_FILE.read_text())["properties"]
    assert set(properties) - {"campaign", "grid"} == set(config.DEFAULTS)
    for name, value in config.DEFAULTS.items():
        if isinstance(value, dict) and "properties" in properties[name]:
            assert set(value) == set(properties[name]["properties"]), name


def test_a_broken_file_names_its_line(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1\nb: [1,\nc: 2\n")
    with pytest.raises(UserError, match=r"x.yaml line \d"):
        config.read_yaml(tmp_path / "x.yaml")


def test_the_manual_shows_every_key_as_it_is_checked():
    text = manual.MANUAL.read_text()
    assert manual.filled(text) == text, "run `python -m jouleline.manual`"


def test_numbers_that_the_command_line_hands_over_as_text_are_read():
    campaign = load(protocol={"window_s": "7.5", "device": "cpu"}, plan={"max_kwh": "2"}, partial="true")
    assert campaign.protocol["window_s"] == 7.5 and campaign.protocol["device"] == "cpu"
    assert campaign.settings["plan"]["max_kwh"] == 2 and campaign.settings["partial"] is True
    assert "plan.max_kwh: must be number or null" in refused(plan={"max_kwh": "much"})


def test_demo_runs_when_nothing_is_said_and_a_grid_needs_a_name():
    assert config.load({"results": "results"}, ROOT).name == "demo"
    with pytest.raises(UserError, match="add `campaign: NAME`"):
        config.load({"grid": {"rows": [ROW]}}, ROOT)
