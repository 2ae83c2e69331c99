"""Campaign files: merging, checking, frozen defaults."""

import json
import math
import subprocess
from pathlib import Path

import pytest
import yaml
from jouleline.campaign import config, manual
from jouleline.errors import UserError
from jouleline.model.fit import fitting, registry
from jouleline.model.judge import gates, splits
from jouleline.schemas.model import HEADLINE
from paths import ROOT

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
        ({"window_s": "long"}, "protocol.window_s must be a number, not 'long'"),
        ({"period_ms": -1}, "protocol.period_ms"),
        ({"meter": "wattmeter"}, "choose from auto, nvml, rapl, estimate"),
    ],
)
def test_a_bad_protocol_is_refused(protocol, text):
    assert text in refused(protocol=protocol)


def test_every_key_of_the_schema_but_what_must_be_given_has_a_default_that_it_allows():
    found = config.defaults()
    properties = json.loads(config.SCHEMA_FILE.read_text())["properties"]
    assert set(properties) - {"campaign", "grid"} == set(found)
    for name, value in found.items():
        assert name == "analysis" or set(value or ()) <= set(properties[name].get("properties", value or ()))
    assert config.schema_problems({**found, "campaign": "x", "grid": {}}) == []
    assert found["analysis"]["headline"] == HEADLINE


def test_a_broken_file_names_its_line(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1\nb: [1,\nc: 2\n")
    with pytest.raises(UserError, match=r"x.yaml line \d"):
        config.read_yaml(tmp_path / "x.yaml")


# What YAML's reader takes for another number, ends the process, or ends in a traceback; and what is said.
NO_YAML = {
    "a: 1\nb: 010\n": "line 2: YAML reads 010 as another number",
    "b: {window_s: 1:30}\n": "line 1: YAML reads 1:30 as another number",
    "b: [-0_17]": "YAML reads -0_17 as another number",
    "b: 2024-13-01": "is not YAML: month must be in 1..12",
    "b: " + "9" * 5000: "is not YAML: Exceeds the limit",
    "a: x\nb: x\x07y\n": r"line 2 holds the sign '.x07'; leave it out",
    "a: " + "[" * 50_000: "line 1 is nested more than 100 levels deep",
    "a:\n " + "- " * 20_000: "line 2 is nested more than 100 levels deep",
    "{a:\n" * 50_000: "line 101 is nested more than 100 levels deep",
    "".join(f"{' ' * n}a:\n" for n in range(200)): "line 101 is nested more than 100 levels deep",
}
GOOD_YAML = {
    'a: "010"': "010",
    "a: '1:30'": "1:30",
    "a: 0": 0,
    "a: 0.5": 0.5,
    "a: " + "[" * 90 + "]" * 90: None,
    "a: '" + "[{" * 500 + "'": "[{" * 500,
    "a: |\n" + " " * 300 + "x\n": "x\n",
}


@pytest.mark.parametrize(("text", "said"), NO_YAML.items(), ids=range(len(NO_YAML)))
def test_what_yaml_would_read_otherwise_is_refused_in_one_line(tmp_path, text, said):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        config.read_yaml(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "value"), GOOD_YAML.items(), ids=range(len(GOOD_YAML)))
def test_what_only_looks_so_is_read(tmp_path, text, value):
    (tmp_path / "x.yaml").write_text(text)
    assert value is None or config.read_yaml(tmp_path / "x.yaml") == {"a": value}


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_budget_that_is_no_number_is_refused(number):
    """Nothing would ever exceed it."""
    assert f"plan.max_kwh: must be a finite number, not {number}" in refused(plan={"max_kwh": number})


def test_the_manual_shows_every_key_as_it_is_checked():
    text = manual.MANUAL.read_text()
    assert manual.filled(text) == text, "run `python -m jouleline.campaign.manual`"


def test_numbers_that_the_command_line_hands_over_as_text_are_read():
    campaign = load(protocol={"window_s": "7.5", "device": "cpu"}, plan={"max_kwh": "2"}, partial="true")
    assert campaign.protocol["window_s"] == 7.5 and campaign.protocol["device"] == "cpu"
    assert campaign.settings["plan"]["max_kwh"] == 2 and campaign.settings["partial"] is True
    assert "plan.max_kwh: must be number or null" in refused(plan={"max_kwh": "much"})


def test_demo_runs_when_nothing_is_said_and_a_grid_needs_a_name():
    assert config.load({"results": "results"}, ROOT).name == "demo"
    with pytest.raises(UserError, match="add `campaign: NAME`"):
        config.load({"grid": {"rows": [ROW]}}, ROOT)


def test_the_schema_names_the_models_splits_gates_and_options_that_there_are():
    known = json.loads(config.SCHEMA_FILE.read_text())["$defs"]
    assert known["model"]["enum"] == list(registry.MODELS)
    assert known["split"]["enum"] == list(splits.SPLITS)
    assert known["gate"]["enum"] == list(gates.GATES)
    assert set(known["fit_options"]["properties"]) == set(fitting.DEFAULTS)
    assert set(known["split_options"]["properties"]) == splits._OPTIONS


@pytest.mark.parametrize(
    ("analysis", "text"),
    [
        ({"models": ["rooflin"]}, "analysis.models[0]: 'rooflin' is not known; choose from paper, roofline"),
        ({"splits": ["H99"]}, "analysis.splits[0]: 'H99' is not known"),
        ({"split_options": {"H0": {"drawz": 3}}}, "analysis.split_options.H0: unknown key drawz"),
        ({"model_options": {"rooflin": {}}}, "analysis.model_options: 'rooflin' is not known"),
        ({"model_options": {"roofline": {"starts": "many"}}}, "roofline.starts: must be integer, not 'many'"),
        ({"gates": {"enabled": ["in_domian"]}}, "analysis.gates.enabled[0]: 'in_domian' is not known"),
        (
            {"gates": {"enabled": "in_domain"}},
            "gates.enabled: 'in_domain' does not fit: Names of gates, or all",
        ),
        (
            {"models": ["paper"], "headline": "hybrid"},
            "analysis.headline: hybrid is not fitted; choose from paper",
        ),
    ],
)
def test_what_the_analysis_would_refuse_is_refused_before_anything_is_measured(analysis, text):
    assert text in refused(analysis=analysis)


def test_the_headline_is_a_model_that_is_fitted():
    assert load(analysis={"models": ["paper", "constant"]}).settings["analysis"]["headline"] == "paper"
    assert load().settings["analysis"]["headline"] == "roofline"


def test_problems_of_schema_and_protocol_are_told_together():
    message = refused(foo=1, protocol={"period_ms": 0, "window_max_s": math.inf})
    assert "3 problem(s)" in message and "protocol.period_ms must be at least 1" in message
    assert "window_s 200 is above window_max_s 120" in refused(protocol={"window_s": 200})


@pytest.mark.parametrize(
    "results", ["", "-x", "a[b]", "s3://bucket/x", "~/x", "my results", "a{b}", "a'b", "a;b", "$HOME/x"]
)
def test_a_folder_that_a_shell_would_read_otherwise_is_refused(results):
    assert "results: " in refused(results=results) and "data: " in refused(data=results)


def test_the_campaigns_own_folder_of_results_counts(tmp_path):
    folder = tmp_path / "config/campaigns"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(json.dumps({"results": "/scratch/me", "grid": {"rows": [ROW]}}))
    base = config.read_yaml(ROOT / "config/config.yaml")
    assert config.load({**base, "campaign": "mine"}, tmp_path).results == "/scratch/me/mine"


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", 5, "a b", "..", "-n", "a\n", "x" * 101])
def test_a_campaign_has_a_name(name):
    with pytest.raises(UserError, match="is no name"):
        config.load({"campaign": name}, ROOT)


def test_a_file_of_other_text_and_a_key_that_is_no_text_are_told(tmp_path):
    (tmp_path / "x.yaml").write_bytes("title: é".encode("latin-1"))
    with pytest.raises(UserError, match="x.yaml is not UTF-8"):
        config.read_yaml(tmp_path / "x.yaml")
    assert "unknown key 5" in refused(**{"report": {5: 6}})


TWICE = {  # text: the two lines, or None where no key stands twice
    "campaign: a\nprotocol: {device: cpu}\ngrid: {}\nprotocol: {idle_s: 1}\n": (2, 4),
    "grid:\n  rows:\n    - {layers: 2,\n       hidden: 8, layers: 3}\n": (3, 4),
    "grid:\n  blocks:\n    - axes:\n        layers: [1]\n        layers: [2]\n": (4, 5),
    '{"a": {"b": 1,\n"b": 2}}': (1, 2),
    "a: &x {k: 1}\nb: {<<: *x, k: 2}\nc: *x\n": None,
    "a: &x {<<: &y {k: 1}, k: 2}\nb: {<<: *x, k: 3}\nc: {<<: [*x, *y]}\n": None,
    'a: {1: x, "1": y}\n': None,
}


@pytest.mark.parametrize(("text", "lines"), TWICE.items(), ids=range(len(TWICE)))
def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path, text, lines):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    if lines is None:
        assert config.read_yaml(path) == yaml.safe_load(text)
        return
    with pytest.raises(UserError, match=rf"x.yaml lines {lines[0]} and {lines[1]}: the key .* stands twice"):
        config.read_yaml(path)


@pytest.mark.parametrize("name", ["a b", "it's", "x;y", "a$b", "a&b", "(a)", 'a"b', "a\tb", "a`b", "a#b"])
def test_a_checkout_at_a_path_that_a_shell_reads_is_refused(name):
    with pytest.raises(UserError, match="the checkout's path .* which a shell reads; move it"):
        config.require_plain_path(Path("/home/me") / name)


@pytest.mark.parametrize("name", ["jouleline-0.1_x,y", "münchen", "a@b+c=d%e:f"])
def test_other_signs_in_the_checkouts_path_are_good(name):
    config.require_plain_path(Path("/home/me") / name)


def test_setup_refuses_such_a_path_before_it_installs_anything(tmp_path):
    for name in ("a b", "x;y", "a$b", "it's", "a&b", "(a)", "a`b", 'a"b'):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
        for needed in ("requirements.in", "base.lock", "torch-cpu.lock", "torch-cuda.lock"):
            (folder / "workflow/envs").mkdir(parents=True, exist_ok=True)
            (folder / "workflow/envs" / needed).touch()
        (folder / "pyproject.toml").touch()
        done = subprocess.run(["make", "setup"], cwd=folder, capture_output=True, text=True)
        assert done.returncode and "setup: this folder's path" in done.stdout + done.stderr, name
        assert not (folder / ".venv").exists(), name
