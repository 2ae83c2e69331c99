"""The report's script: equal inputs give equal bytes in another process, and bad input gets one line."""

import os
import subprocess
import sys
from pathlib import Path

import fabricated_campaign
import pytest
from paths import SCRIPTS
from programs import script


def words_for(arguments: dict, out: Path, *more: str) -> list[str]:
    words = ["--out", str(out), *more]
    flat = {**arguments, **arguments["tables"], **arguments["facts"]}
    for name, value in flat.items():
        if isinstance(value, dict):
            continue
        words += [
            f"--{name.replace('_', '-')}",
            *([str(v) for v in value] if isinstance(value, list) else [str(value)]),
        ]
    return words


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return fabricated_campaign.write(tmp_path_factory.mktemp("campaign"))


def test_two_processes_write_the_same_bytes(campaign, tmp_path):
    pages = []
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.html"
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
        words = words_for(campaign, out, "--settings", '{"traces": 1, "title": "A title"}')
        command = [sys.executable, SCRIPTS / "render_report.py", *words]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        pages.append(out.read_bytes())
    assert pages[0] == pages[1]
    assert b"<h1>A title</h1>" in pages[0]


def test_a_missing_input_is_one_line(campaign, tmp_path):
    out = tmp_path / "report.html"
    gone = campaign | {"facts": campaign["facts"] | {"validation": tmp_path / "nowhere.json"}}
    result = script("render_report", *words_for(gone, out))
    assert result.returncode == 2
    assert result.stderr.startswith("error: missing file") and "nowhere.json" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_a_torn_table_is_one_line(campaign, tmp_path):
    torn = tmp_path / "runs.parquet"
    torn.write_bytes(Path(campaign["tables"]["runs"]).read_bytes()[:-20])
    with_torn = campaign | {"tables": campaign["tables"] | {"runs": torn}}
    result = script("render_report", *words_for(with_torn, tmp_path / "report.html"))
    assert result.returncode == 2
    assert result.stderr.startswith("error:") and result.stderr.count("\n") == 1


def test_settings_that_are_not_json_are_one_line(campaign, tmp_path):
    result = script("render_report", *words_for(campaign, tmp_path / "report.html", "--settings", "{traces"))
    assert result.returncode == 2
    assert result.stderr.startswith("error: --settings is not JSON") and result.stderr.count("\n") == 1
