"""The profile is found by every name a user may give; the site patterns of profiles/README.md work."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.checkout import ROOT, Checkout
from tests.workflow.test_slurm_submission import checkout_of, recorder, submitted  # noqa: F401

SITES = re.findall(r"### (\w): .*?```yaml\n(.*?)```", (ROOT / "profiles/README.md").read_text(), re.S)
SLURM = ROOT / "profiles/slurm/config.yaml"


@pytest.mark.parametrize(
    "choice", ["--profile=slurm", "--profile=profiles/slurm", "--workflow-profile=slurm"]
)
@pytest.mark.long
def test_the_profile_is_found(tmp_path, choice):
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {})
    done = checkout.snakemake("-n", choice, "measurements")
    assert "measure_run" in done.stdout and "This was a dry-run" in done.stdout


def test_three_sites_are_shown():
    assert [name for name, _ in SITES] == ["A", "B", "C"]
    assert all(set(yaml.safe_load(text)) & {"default-resources", "slurm-qos"} for _, text in SITES)


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ("A", ["-A proj42", "-p booster", "-C nvlink"]),
        ("B", ["-p shared", "--qos=energy", "--reservation=benchmark-week"]),
        ("C", ["-p gpu"]),
    ],
)
@pytest.mark.long
def test_a_sites_values_reach_sbatch(recorder, tmp_path, site, words):  # noqa: F811
    checkout: Checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {})
    (recorder / "apptainer").write_text("#!/bin/sh\necho apptainer version 1.3.4\n")
    (recorder / "apptainer").chmod(0o755)
    (checkout.root / "jouleline.sif").touch()
    profile = {**yaml.safe_load(SLURM.read_text()), **yaml.safe_load(dict(SITES)[site])}
    (checkout.root / "site").mkdir()
    (checkout.root / "site/config.yaml").write_text(yaml.safe_dump(profile))
    lines = submitted(recorder, checkout, "measurements", profile="site")
    assert lines and all(word in text for text in lines.values() for word in words), lines


def test_nothing_of_a_site_is_in_a_rule():
    texts = [path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]]
    for word in ("slurm_account", "slurm_partition", "constraint=", "qos", "module load", "reservation"):
        assert not any(word in text for text in texts), word


@pytest.mark.long
def test_a_checkout_dry_runs_without_any_slurm(tmp_path):
    """The profile's options are known to Snakemake even where no Slurm client is installed."""
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {})
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = ["snakemake", "-n", "--profile", "slurm", "measurements", "--configfile", "campaign.yaml"]
    done = subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
