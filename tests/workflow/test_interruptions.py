"""An interrupted campaign resumes: finished rows are kept, and half-written ones never count.

Real fine-tuning on this machine, in short windows. Processes are really killed.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from jouleline.measure.node.device_lock import DeviceLock
from jouleline.schemas import read_table
from jouleline.schemas.runs import RUNS

from tests.workflow.checkout import Checkout

CAMPAIGN = {
    "campaign": "short",
    "node": {"exclusive": False},
    "protocol": {
        **{"device": "cpu", "meter": "estimate", "window_s": 1.5, "window_steps": 2, "warmup_steps": 2},
        **{"warmup_max_steps": 4, "idle_s": 0.2, "eval_batches": 1, "calibration_s": 3},
    },
    "grid": {
        "blocks": [
            {
                "axes": {"layers": [1, 2]},
                "set": {
                    "hidden": 64,
                    "heads": 2,
                    "intermediate": 128,
                    "seq_len": 32,
                    "micro_batch": 4,
                    "vocab_size": 512,
                },
            }
        ]
    },
}
ARGUMENTS = ["--resources", "measuring=1", "--cores", "2", "measurements"]


def of_rows(count: int):
    """With so many rows; two without it."""
    return pytest.mark.parametrize("checkout", [count], indirect=True, ids=[""])


@pytest.fixture
def checkout(request, tmp_path, small_dataset):
    """A checkout with its data set. In the end all its rows are measured, whatever a test did to it."""
    rows = getattr(request, "param", 2)
    campaign = copy.deepcopy(CAMPAIGN)
    campaign["grid"]["blocks"][0]["axes"]["layers"] = list(range(1, rows + 1))
    made = Checkout(tmp_path / "checkout", campaign)
    made.give_dataset(small_dataset)
    runs = made.root / "results/short/runs"
    yield made
    made.snakemake(*ARGUMENTS)
    records = [json.loads(path.read_text()) for path in runs.glob("*/run.json")]
    assert len(records) == rows and all(record["status"] == "ok" for record in records)
    assert {path.name for path in runs.glob("*/*")} == {"run.json", "samples.parquet", "markers.parquet"}
    assert "Nothing to be done" in made.snakemake(*ARGUMENTS).stdout


class Started:
    """Snakemake in the background."""

    def __init__(self, checkout: Checkout):
        self.runs = checkout.root / "results/short/runs"
        command = [sys.executable, "-m", "snakemake", "--configfile", "campaign.yaml", *ARGUMENTS]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = forked.Popen(
            forked.SNAKEMAKE, command, cwd=checkout.root, start_new_session=True, **quiet
        )

    def finished(self) -> dict[str, float]:
        return {path.parent.name: path.stat().st_mtime for path in self.runs.glob("*/run.json")}

    def wait_until_training(self, after: int) -> Path:
        """Wait until `after` runs are finished or failed and the next one trains. Returns its folder."""
        return wait_for(lambda: len(list(self.runs.glob("*/run*.json"))) == after and self._training())

    def _training(self) -> Path | None:
        # A run that has just been written keeps its raw folder until its job ends, one that failed for ever.
        runs = (path.parents[2] for path in self.runs.glob("*/raw/node-0/training"))
        return next((run for run in runs if not list(run.glob("run*.json"))), None)

    def children(self, word: str) -> list[int]:
        return [pid for pid in descendants(self.process.pid) if word in command_of(pid)]


def wait_for(condition, timeout_s: float = 150):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            child = int(path.parent.name)
            found += [child, *descendants(child)]
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if command_of(pid)]


def test_an_interrupt_keeps_what_is_finished(checkout):
    started = Started(checkout)
    started.wait_until_training(after=1)
    finished = started.finished()
    below = descendants(started.process.pid)
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.process.wait(150) != 0
    wait_for(lambda: not alive(below))
    assert started.finished() == finished
    checkout.snakemake(*ARGUMENTS)
    assert finished.items() <= started.finished().items()


@pytest.mark.long
def test_what_may_run_beside_a_campaign_and_what_may_not(checkout, tmp_path, monkeypatch):
    """A plan, a partial report and another campaign may run; the same campaign may not. None disturbs it."""
    planned = Checkout.planned(checkout, "measurements")["measure_run"]
    checkout.snakemake("--cores", "2", next(path for path in sorted(planned) if path.endswith("run.json")))
    node = checkout.root / "results/short/node"
    checkout.snakemake(
        "--cores", "2", *(f"results/short/node/{name}.json" for name in ("calibration", "idle"))
    )
    part = ("--cores", "1", "--config", "partial=true", "--", "report")
    monkeypatch.setenv("JOULELINE_DEVICE_LOCK", str(tmp_path / "lock"))
    with DeviceLock():  # the campaign's second row waits for the end of this "measurement"
        campaign = Started(checkout)
        first = campaign.finished()
        wait_for(lambda: len(list(campaign.runs.glob("*/raw"))) == 1)
        assert "1 of 2 runs are measured" in checkout.snakemake("--cores", "1", "plan").stdout
        (node / "idle.json").rename(node / "kept")
        refused = checkout.snakemake(*part, check=False)
        assert refused.returncode and "yet to be measured for (measure_idle)" in refused.stdout
        (node / "kept").rename(node / "idle.json")
        checkout.snakemake(*part)
        assert (checkout.root / "results/short/report.html").exists()
        assert len(read_table(RUNS, checkout.root / "results/short/tables/runs.parquet")) == 1
        again = checkout.snakemake(*ARGUMENTS, check=False)
        assert again.returncode and "LockException" in again.stdout
        checkout.snakemake("--cores", "1", "--config", "campaign=other", "--", "results/other/grid.json")
        assert campaign.process.poll() is None and campaign.finished() == first
    assert campaign.process.wait(timeout=150) == 0
    assert first.items() <= campaign.finished().items() and len(campaign.finished()) == 2


@of_rows(1)
def test_a_killed_snakemake_leaves_no_measurement_behind(checkout):
    started = Started(checkout)
    run = started.wait_until_training(after=0)
    below = descendants(started.process.pid)
    started.process.kill()
    started.process.wait()
    wait_for(lambda: not alive(below))
    assert not (run / "run.json").exists()
    assert "unlock" in checkout.snakemake(*ARGUMENTS, check=False).stdout
    checkout.snakemake("--unlock", "--cores", "1")


@of_rows(3)
def test_a_killed_trainer_or_sidecar_fails_its_row_and_no_other(checkout):
    started, reasons = Started(checkout), {}
    run = started.wait_until_training(after=0)
    agents = [pid for pid in started.children("measure_run.py") if "bash" not in command_of(pid)]
    os.kill([pid for pid in agents if descendants(pid) == []][-1], signal.SIGKILL)
    reasons[run] = "rank_killed"
    run = started.wait_until_training(after=1)
    os.kill(started.children("measure/sidecar")[0], signal.SIGKILL)
    reasons[run] = "sidecar_died"
    assert started.process.wait(200) != 0
    assert len(started.finished()) == 1 and not started.finished().keys() & {run.name for run in reasons}
    records = {run: json.loads((run / "run.failed.json").read_text()) for run in reasons}
    assert {record["status"] for record in records.values()} == {"failed"}
    assert {run: record["reason"] for run, record in records.items()} == reasons
