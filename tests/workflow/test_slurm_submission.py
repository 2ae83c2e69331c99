"""The sbatch line of every kind of job, to the letter: recorded by an sbatch that submits nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

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


def submitted(recorder: Path, checkout: Checkout, *arguments: str, profile: str = "slurm") -> dict[str, str]:
    """{job comment: rest of the sbatch line}, with what differs from run to run taken out."""
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{recorder}:{binaries}:{os.environ['PATH']}"}
    command = [
        str(binaries / "snakemake"),
        "--profile",
        profile,
        "--configfile",
        "campaign.yaml",
        "--retries",
        "0",
    ]
    command += ["--slurm-init-seconds-before-status-checks", "1", *arguments]
    done = subprocess.run(
        command, cwd=checkout.root, env=environment, capture_output=True, text=True, timeout=120
    )
    lines = {}
    for line in (recorder / "lines").read_text().splitlines():
        line = re.sub(r" --wrap=.*", "", line).replace(str(checkout.root), "ROOT")
        line = re.sub(r"--job-name [0-9a-f-]{36}", "--job-name UUID", line)
        comment = re.search(r"--comment (\S+)", line)[1]
        lines[comment] = line
    assert lines, done.stdout + done.stderr
    return lines


def line(comment: str, rule: str, wildcard: str, rest: str) -> str:
    log = f"ROOT/.snakemake/slurm_logs/rule_{rule}/{wildcard}/%j.log".replace("//", "/")
    return f"--parsable --job-name UUID --output {log} --export=ALL --comment {comment} {rest}"


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
    return checkout


def by_geometry(lines: dict[str, str]) -> dict[str, str]:
    """{NxG of the run id: line} of the measurements."""
    return {
        found[1]: text for comment, text in lines.items() if (found := re.search(r"-N(\d+x\d+)-", comment))
    }


def rest_of(text: str) -> str:
    """What follows the comment."""
    return re.sub(r".*--comment \S+\s+", "", text)


def test_gpu_rows(recorder, tmp_path):
    """One node: all its devices as gres and no task count. Several: as many tasks as nodes, gres per node."""
    rows = [{}, {"gpus_per_node": 4, "zero_stage": 1}, {"nodes": 2, "gpus_per_node": 4, "zero_stage": 1}]
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, *rows)
    lines = submitted(recorder, checkout, "measurements")
    found = {key: rest_of(text) for key, text in by_geometry(lines).items()}
    assert found == {
        "1x1": "-t 11 --mem 4505 --no-requeue --cpus-per-task=4 --exclusive -D ROOT --gres=gpu:1",
        "1x4": "-t 11 --mem 12020 --no-requeue --cpus-per-task=16 --exclusive -D ROOT --gres=gpu:4",
        "2x4": "-t 11 --mem 12020 --nodes=2 --no-requeue --ntasks=2 --cpus-per-task=16 --exclusive -D ROOT"
        " --gres=gpu:4",
    }
    assert len(lines) == 3  # one job per row, no array


def test_cpu_rows_ask_for_no_gres(recorder, tmp_path):
    rows = [{"gpus_per_node": 2, "zero_stage": 1}, {"nodes": 2, "gpus_per_node": 1, "zero_stage": 1}]
    checkout = checkout_of(tmp_path, {"exclusive": False}, {"device": "cpu", "threads_per_device": 3}, *rows)
    found = {
        key: rest_of(text) for key, text in by_geometry(submitted(recorder, checkout, "measurements")).items()
    }
    assert found == {
        "1x2": "-t 11 --mem 7032 --no-requeue --ntasks=1 --cpus-per-task=6 -D ROOT",
        "2x1": "-t 11 --mem 4516 --nodes=2 --no-requeue --ntasks=2 --cpus-per-task=3 -D ROOT",
    }


def test_whole_line_with_the_values_of_a_site(recorder, tmp_path):
    """Account, partition and constraint come from the site's profile alone."""
    checkout = checkout_of(
        tmp_path, {"gres": "gpu:h200"}, {"device": "cuda"}, {"gpus_per_node": 2, "zero_stage": 1}
    )
    site = ["--default-resources", "slurm_account=proj42", "slurm_partition=gpu", "constraint=nvlink"]
    lines = submitted(recorder, checkout, "measurements", *site)
    ((comment, text),) = lines.items()
    run_id = comment.removeprefix("rule_measure_run_wildcards_")
    rest = "-A proj42 -p gpu -t 11 -C nvlink --mem 7010 --no-requeue --cpus-per-task=8 --exclusive -D ROOT"
    rest += " --gres=gpu:h200:2"
    assert re.sub(" +", " ", text) == line(comment, "measure_run", run_id, rest)


def test_the_jobs_of_a_node(recorder, tmp_path):
    """Data set, calibration and idle power: one job each; the calibration sees the devices of the largest row."""
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {"gpus_per_node": 4, "zero_stage": 1})
    (checkout.root / "results/lines/dataset/docstrings-v2048.parquet").unlink()
    found = {key: rest_of(text) for key, text in submitted(recorder, checkout).items()}
    dataset = "rule_prepare_dataset_wildcards_docstrings-v2048"
    assert found == {
        dataset: "-t 30 --mem 4000 --no-requeue --ntasks=1 --cpus-per-task=1 -D ROOT",
        "rule_calibrate_node": "-t 30 --mem 8000 --no-requeue --cpus-per-task=16 --exclusive -D ROOT --gres=gpu:4",
        "rule_measure_idle": "-t 10 --mem 2000 --no-requeue --cpus-per-task=1 --exclusive -D ROOT --gres=gpu:4",
    }
