"""What `make run` ends with: the held-out error, whether energy was estimated, and the report's path."""

import json
import subprocess
from pathlib import Path

import fabricated_campaign
import pytest
from programs import script


def show(folder: Path) -> subprocess.CompletedProcess:
    return script("show_headline", "--campaign", folder.name, "--results", folder.parent)


@pytest.mark.parametrize("source", ["estimate", "nvml_counter"])
def test_the_headline_says_error_source_and_path(tmp_path, source):
    fabricated_campaign.write(tmp_path, source)
    out = show(tmp_path).stdout
    assert "26 runs (1 invalid, 1 oom, 24 valid)" in out
    assert "by 5.0 % on unseen configurations of the grid (H0; 95 % interval 3.5 to 7.5 %)" in out
    assert ("ENERGY IS ESTIMATED, NOT MEASURED" in out) == (source == "estimate")
    assert "paper law, η measured (post-run)" in out
    assert "on the same runs: −17.0 points (−20 to −14.0) in H0, ahead;" in out
    assert out.endswith(f"Report: {tmp_path / 'report.html'}\n")


def test_a_campaign_without_a_score_says_why(tmp_path):
    fabricated_campaign.write_empty(tmp_path)
    result = show(tmp_path)
    assert result.returncode == 0
    assert "1 run (1 failed)" in result.stdout
    assert "No held-out error can be quoted for this campaign: no run finished." in result.stdout


def test_a_campaign_that_is_not_there_is_one_line(tmp_path):
    result = show(tmp_path / "nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("error: missing file") and result.stderr.count("\n") == 1


def test_the_headline_is_of_the_model_that_the_scores_are_about(tmp_path):
    fabricated_campaign.write(tmp_path)
    validation = json.loads((tmp_path / "validation.json").read_text())
    (tmp_path / "validation.json").write_text(json.dumps(validation | {"headline": "paper"}))
    first = next(line for line in show(tmp_path).stdout.splitlines() if line.startswith("  H0"))
    assert first.split()[1] == "paper"
