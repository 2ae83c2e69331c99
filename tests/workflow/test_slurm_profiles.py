"""The profile is found by every name a user may give; the site patterns of profiles/README.md work."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.checkout import ROOT
from tests.workflow.sbatch_lines import checkout_of, rest_of, submitted

README = (ROOT / "profiles/README.md").read_text()
SITES = {
    name: yaml.safe_load(text) for name, text in re.findall(r"### (\w): .*?```yaml\n(.*?)```", README, re.S)
}
ASKED = "--cpus-per-task=4 -D ROOT --exclusive --gres=gpu:1"


@pytest.mark.parametrize(
    "choice", ["--profile=slurm", "--profile=profiles/slurm", "--workflow-profile=slurm"]
)
def test_the_profile_is_found_by_each_of_its_names(recorder, tmp_path, choice):
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {})
    (text,) = submitted(recorder, checkout, "measurements", profile=choice).values()
    assert rest_of(text) == f"-t 11 --mem 4505 --no-requeue {ASKED}"


@pytest.fixture
def at_site(recorder, tmp_path, monkeypatch):
    """What is submitted with a site's profile, made and named as profiles/README.md says."""

    def submit(site: str, *arguments: str) -> dict[str, str]:
        checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {})
        folder = tmp_path / "home/snakemake" / f"site-{site}"
        folder.mkdir(parents=True)
        profile = {**yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text()), **SITES[site]}
        (folder / "config.yaml").write_text(yaml.safe_dump(profile))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
        if site == "C":
            (recorder / "apptainer").write_text("#!/bin/sh\necho apptainer version 1.3.4\n")
            (recorder / "apptainer").chmod(0o755)
            (checkout.root / "jouleline.sif").touch()
            (checkout.root / "results/lines/dataset/docstrings-v2048.parquet").unlink()
        return submitted(recorder, checkout, *arguments, profile=f"--profile=site-{site}")

    return submit


def test_account_partition_and_constraint(at_site):
    (text,) = at_site("A", "measurements").values()
    assert rest_of(text) == f"-A proj42 -p booster -t 11 -C nvlink --mem 4505 --no-requeue {ASKED}"


def test_quality_of_service_and_reservation(at_site):
    (text,) = at_site("B", "measurements").values()
    extra = "--qos=energy --reservation=benchmark-week"
    assert rest_of(text) == f"-p shared -t 11 --mem 4505 --no-requeue {extra} {ASKED}"


def test_a_container_and_two_partitions(at_site, recorder):
    found = {comment: rest_of(text) for comment, text in at_site("C").items()}
    assert found == {
        "rule_prepare_dataset_wildcards_docstrings-v2048": "-p cpu -t 30 --mem 4000 --no-requeue --ntasks=1"
        " --cpus-per-task=1 -D ROOT",
        "rule_calibrate_node": f"-p gpu -t 30 --mem 8000 --no-requeue {ASKED}",
        "rule_measure_idle": "-p gpu -t 10 --mem 2000 --no-requeue --cpus-per-task=1 -D ROOT --exclusive --gres=gpu:1",
    }
    options = base64.b64encode(b"--nv --bind /scratch").decode()
    for text in (recorder / "whole_lines").read_text().splitlines():
        assert f"--apptainer-args base64//{options} " in text and "--deployment-method apptainer " in text
    rules = set(re.findall(r"^rule (\w+):", "".join(path.read_text() for path in RULES), re.M))
    assert SITES["C"]["set-resources"].keys() <= rules


RULES = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]


def test_nothing_of_a_site_is_in_rules_or_code():
    library = [path for path in (ROOT / "workflow/jouleline").rglob("*.py") if path.parent.name != "slurm"]
    texts = [path.read_text() for path in [*RULES, *library, *(ROOT / "scripts").glob("*.py")]]
    for word in ("slurm_account", "slurm_partition", "constraint=", "qos", "module load", "reservation"):
        assert not any(word in text for text in texts), word


def test_what_the_executor_gets_wrong_and_a_setting_can_answer():
    """Retries in a rule would run inside the job too; Slurm's requeueing would run a row beside its retry."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert profile["retries"] >= 1 and profile["slurm-no-requeue"] is True
    assert profile["slurm-status-command"] == "squeue" and "slurm-array-jobs" not in profile
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert not {"default-resources", "set-resources", "groups", "retries", "jobs"} & default.keys()
    assert not any(re.search(r"retries: *[^0\s]", path.read_text()) for path in RULES)


@pytest.mark.long
def test_a_checkout_dry_runs_without_any_slurm(tmp_path):
    """The profile's options are known to Snakemake even where no Slurm client is installed."""
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {})
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = ["snakemake", "-n", "--profile", "slurm", "measurements", "--configfile", "campaign.yaml"]
    done = subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
