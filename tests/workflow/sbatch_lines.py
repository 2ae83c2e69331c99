"""The sbatch line of every job of a campaign. An sbatch that submits nothing records them."""

import os
import re
import sys
from pathlib import Path

import forked
import pytest

from tests.workflow.checkout import Checkout

ROW = {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 256, "seq_len": 32, "micro_batch": 4}
RECORDER = """#!/bin/sh
printf '%s\\n' "$*" >> {folder}/lines
echo 'recorded' >&2
exit 1
"""


@pytest.fixture
def recorder(tmp_path):
    """A folder with an sbatch that records, and clients that know of no job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "lines").touch()
    programs = {"sbatch": RECORDER.format(folder=folder), "sacctmgr": "#!/bin/sh\necho proj42\n"}
    programs |= dict.fromkeys(("squeue", "sacct", "sinfo", "scontrol", "scancel"), "#!/bin/sh\nexit 0\n")
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def submitted(
    recorder: Path, checkout: Checkout, *arguments: str, profile: str = "--profile=slurm"
) -> dict[str, str]:
    """{job comment: rest of the sbatch line}, with what differs from run to run taken out."""
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{recorder}:{binaries}:{os.environ['PATH']}"}
    command = [sys.executable, binaries / "snakemake", profile, "--configfile", "campaign.yaml"]
    command += ["--retries", "0", "--slurm-init-seconds-before-status-checks", "1", *arguments]
    captured = {"capture_output": True, "text": True, "timeout": 120}
    done = forked.run(forked.SNAKEMAKE, command, cwd=checkout.root, env=environment, **captured)
    lines = {}
    text = (recorder / "lines").read_text()
    (recorder / "lines").rename(recorder / "whole_lines")
    (recorder / "lines").touch()
    for line in text.splitlines():
        line = re.sub(r" --wrap=.*", "", line).replace(str(checkout.root), "ROOT")
        line, names = re.subn(r"--job-name \S+\.\w{12} ", "--job-name NAME ", line)
        assert names == 1, line
        # One job of a name at a time. Parts of a group may have the same name.
        line, single = re.subn(r" --dependency=singleton", "", line)
        assert single == ("/group_" not in line), line
        line, marks = re.subn(r"(--comment \S+):\w{12}\.\w{12}", r"\1", line)
        assert marks == 1, line
        lines[re.search(r"--comment (\S+)", line)[1]] = line
    assert lines, done.stdout + done.stderr
    return lines


def line(comment: str, rule: str, wildcard: str, rest: str) -> str:
    log = f"ROOT/.snakemake/slurm_logs/rule_{rule}/{wildcard}/%j.log".replace("//", "/")
    return f"--parsable --job-name NAME --output {log} --export=ALL --comment {comment} {rest}"


def checkout_of(tmp_path: Path, node: dict, protocol: dict, *rows: dict) -> Checkout:
    """A checkout whose data set is there already, so that measurements are the next jobs."""
    campaign = {
        "campaign": "lines",
        "node": {"gpus": 4, **node},
        "protocol": {"startup_timeout_s": 300, "window_max_s": 60, **protocol},
        "grid": {"defaults": {**ROW, "vocab_size": 2048}, "rows": list(rows)},
    }
    checkout = Checkout(tmp_path / "checkout", campaign)
    dataset = checkout.root / "results/lines/dataset"
    dataset.mkdir(parents=True)
    for name in ("docstrings-v2048.parquet", "docstrings-v2048.tokenizer.json"):
        (dataset / name).touch()
        os.utime(dataset / name, (1e9, 1e9))  # older than whatever is made of it
    return checkout


def by_geometry(lines: dict[str, str]) -> dict[str, str]:
    """{NxG of the run id: line} of the measurements."""
    return {
        found[1]: text for comment, text in lines.items() if (found := re.search(r"-N(\d+x\d+)-", comment))
    }


def rest_of(text: str) -> str:
    """What follows the comment."""
    return re.sub(r".*--comment \S+\s+", "", text)
