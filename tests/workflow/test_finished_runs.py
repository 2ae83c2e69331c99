"""A measured run stays, however the job or the Snakemake around it ended, and is not measured again.

A script takes the place of the measuring: it writes the files of a run at once, and then ends as it is told.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from tests.workflow.checkout import Checkout
from tests.workflow.test_interruptions import CAMPAIGN

MEASURE = """
import json, sys, time
from pathlib import Path

from jouleline.campaign.config import complete_protocol
from jouleline.campaign.grid import complete_row, row_key
from jouleline.files import write_json

if sys.flags.optimize:
    sys.exit("no docstrings")
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
row, protocol = complete_row(json.loads(words["--row"])), complete_protocol(json.loads(words["--protocol"]))
with open("starts", "a") as starts:
    print(words["--run-id"], file=starts)
end = Path("end").read_text()
out = Path(words["--out-dir"])
for name in ("samples", "markers"):
    (out / f"{name}.parquet").touch()
digest = "other" if end == "other" else words["--code-digest"]
write_json(out / "run.json", {"row_key": row_key(row), "protocol": protocol, "code_digest": digest})
time.sleep(600 if end == "wait" else 0)
sys.exit(end != "well")
"""


@pytest.fixture
def checkout(tmp_path):
    """A campaign of one row, whose data set is there."""
    checkout = Checkout(tmp_path / "checkout", CAMPAIGN)
    checkout.campaign["grid"]["blocks"][0]["axes"]["layers"] = [1]
    checkout.save()
    (checkout.root / "scripts/measure_run.py").write_text(MEASURE)
    dataset = checkout.root / "results/short/dataset/docstrings-v4096.parquet"
    dataset.parent.mkdir(parents=True)
    dataset.touch()
    return checkout


def measure(checkout: Checkout, end: str = "well", check: bool = True) -> str:
    """The output of a snakemake whose measuring scripts end in this way."""
    (checkout.root / "end").write_text(end)
    return checkout.snakemake("--cores", "1", "measurements", check=check).stdout


def starts(checkout: Checkout) -> int:
    return len((checkout.root / "starts").read_text().split())


def record(checkout: Checkout) -> Path | None:
    return next(iter((checkout.root / "results/short/runs").glob("*/run.json")), None)


def interrupt(checkout: Checkout) -> None:
    """Start snakemake. Interrupt it and its job as soon as a run is whole."""
    (checkout.root / "end").write_text("wait")
    before = starts(checkout)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--configfile",
        "campaign.yaml",
        "--cores",
        "1",
        "measurements",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with forked.Popen(
        forked.SNAKEMAKE, command, cwd=checkout.root, start_new_session=True, **quiet
    ) as process:
        while starts(checkout) == before or not record(checkout):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) != 0


def test_a_run_stays_whose_job_failed_or_was_interrupted_after_it(checkout):
    said = measure(checkout, "badly")
    assert "counts as finished" in said and starts(checkout) == 1
    assert "Nothing to be done" in measure(checkout)
    # The parameters that Snakemake has recorded are then those of another protocol.
    checkout.campaign["protocol"] = {**checkout.campaign["protocol"], "window_s": 2.0}
    checkout.save()
    interrupt(checkout)
    kept = record(checkout)
    whole = kept.stat().st_mtime_ns
    assert "measure_run" not in measure(checkout) and kept.stat().st_mtime_ns == whole
    assert "Nothing to be done" in measure(checkout) and starts(checkout) == 2
    assert not [path for path in (checkout.root / ".snakemake/incomplete").rglob("*") if path.is_file()]


def test_what_is_of_another_code_is_taken_away_and_measured_again(checkout):
    said = measure(checkout, "other", check=False)
    assert "Removing output files" in said and not record(checkout)
    measure(checkout)
    assert record(checkout) and starts(checkout) == 2


def test_what_was_set_for_another_python_does_not_reach_a_job(checkout, monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    measure(checkout)
    assert record(checkout)
