"""A budget stops the measuring, before anything is submitted. It counts only what would really run."""

import copy
import os
import time

import pytest
from jouleline.campaign import grid
from jouleline.campaign.protocol import complete_protocol
from jouleline.files import read_json, write_json

from tests.workflow.checkout import Checkout

SHAPE = {"hidden": 64, "heads": 2, "intermediate": 256, "seq_len": 32, "micro_batch": 4}
CAMPAIGN = {
    "campaign": "budget",
    "node": {"gpus": 2, "exclusive": False},
    "protocol": {"device": "cpu", "meter": "estimate", "window_s": 30},
    "grid": {"defaults": {"vocab_size": 8192}, "blocks": [{"axes": {"layers": [1, 2, 3]}, "set": SHAPE}]},
    "analysis": {"models": ["roofline"], "splits": ["H0"], "shards": 2},
}
# Three jobs of 30 s beside a window of 30 s need more, one needs less.
LIMIT = {"device": "h100", "price_per_kwh": 0.3, "max_gpu_hours": 0.04}


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "checkout", {**copy.deepcopy(CAMPAIGN), "plan": LIMIT})


def refused(checkout, *targets):
    done = checkout.snakemake("--cores", "1", *targets, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stdout
    (line,) = {line.strip(" |") for line in done.stdout.splitlines() if "plan.max_gpu_hours" in line}
    return line.removeprefix("error: "), done.stdout


def test_measuring_is_refused_before_anything_runs(checkout):
    line, text = refused(checkout)
    assert line.startswith("the campaign needs 0.0") and line.endswith("cut rows or raise it")
    assert not (checkout.root / "results").exists() and "Error in rule" not in text
    # Nothing is locked, and a call that measures nothing is not stopped.
    checkout.snakemake("--cores", "1", "results/budget/grid.json")


def test_a_dry_run_is_refused_after_its_table(checkout):
    line, text = refused(checkout, "-n")
    assert line.endswith("cut rows or raise it") and text.index("Job stats") < text.index(line)
    assert "plan.max" not in checkout.snakemake("--cores", "1", "-n", "results/budget/grid.json").stdout
    checkout.campaign["plan"] = {"memory_gib": 0.001}
    checkout.campaign["protocol"] = {"device": "cuda"}
    checkout.save()
    done = checkout.snakemake("--cores", "1", "-n", "-q", "rules", check=False)
    assert done.returncode and "Traceback" not in done.stdout
    assert "measure_run" in done.stdout and "3 runs cannot fit in the memory of a device" in done.stdout


def test_a_campaign_within_its_budget_is_not_stopped(checkout):
    checkout.edit("scripts/measure_run.py", "return run_script(lambda: _run(arguments))", "return 3")
    checkout.campaign["plan"] = {**LIMIT, "max_gpu_hours": 1.0}
    checkout.save()
    finish(checkout, 0)
    done = checkout.snakemake("--cores", "1", "smoke", check=False)
    assert "Error in rule measure_run" in done.stdout and "plan.max" not in done.stdout


def finish(checkout, count):
    """Leave the records and files of the first runs, as if today's code had measured them."""
    runs = grid.expand(checkout.campaign["grid"], "cpu", 2)
    planned = checkout.snakemake("--cores", "1", "-n", "-p", "measurements", check=False).stdout
    digest = planned.split("--code-digest ")[1].split()[0]
    protocol = complete_protocol(checkout.campaign["protocol"])
    record = {"status": "ok", "wall_s": 40.0, "training": {"time_s": 10.0}, "protocol": protocol}
    dataset = checkout.root / "results/budget/dataset"
    dataset.mkdir(parents=True)
    for name in ("docstrings-v8192.parquet", "docstrings-v8192.tokenizer.json"):
        (dataset / name).touch()
    for run in runs[:count]:
        folder = checkout.root / "results/budget/runs" / run.run_id
        own = {"run_id": run.run_id, "row": run.row, "row_key": run.key, "code_digest": digest}
        write_json(folder / "run.json", {**record, **own})
        for name in ("samples.parquet", "markers.parquet"):
            (folder / name).touch()


def test_finished_rows_do_not_count(checkout):
    checkout.edit("scripts/measure_run.py", "return run_script(lambda: _run(arguments))", "return 3")
    refused(checkout, "measurements")
    finish(checkout, 2)
    done = checkout.snakemake("--cores", "1", "measurements", check=False)
    assert "Error in rule measure_run: bert-L" in done.stdout and "plan.max" not in done.stdout
    assert "CalledProcessError" not in done.stdout and "tries it again" in done.stdout


def test_results_copied_without_their_times_are_not_measured_again(checkout):
    """The message comes before anything runs, with the remedy. A run of another row is measured."""
    finish(checkout, 2)
    for path in (checkout.root / "results/budget/runs").glob("*/*"):
        os.utime(path, (time.time() - 60, time.time() - 60))
    done = checkout.snakemake("--cores", "1", "measurements", check=False)
    assert done.returncode and "Error in rule" not in done.stdout and "Traceback" not in done.stdout
    (line,) = {line for line in done.stdout.splitlines() if "copied without their times" in line}
    assert line.startswith("2 runs are measured") and "snakemake --touch --cores 1" in line
    checkout.snakemake("--cores", "1", "--touch", "measurements")
    assert len(Checkout.planned(checkout, "measurements")["measure_run"]) == 3


def test_a_plan_shows_its_table_every_time_and_refuses(checkout):
    _, text = refused(checkout, "plan")
    assert (
        "3 runs to measure: 0.0" in text and "0 of 3 runs are measured" in text and "unknown kg CO2e" in text
    )
    finish(checkout, 2)
    # A campaign that runs beside it holds this lock.
    lock = checkout.root / ".snakemake/locks/0.output.lock"
    lock.write_text("results/budget/grid.json\nresults/budget/plan.csv\n")
    for _ in range(2):
        text = checkout.snakemake("--cores", "1", "plan").stdout
        assert "2 of 3 runs are measured" in text and "1 runs to measure" in text
    assert lock.exists() and "LockException" in checkout.snakemake("--cores", "1", check=False).stdout
    table = (checkout.root / "results/budget/plan.csv").read_text().splitlines()
    assert len(table) == 2 and "-L3-" in table[1]


def test_rows_that_other_code_or_another_protocol_measured_are_counted_again(checkout):
    finish(checkout, 3)
    assert "nothing is left to measure" in checkout.snakemake("--cores", "1", "plan").stdout
    path = next((checkout.root / "results/budget/runs").glob("*/run.json"))
    write_json(path, read_json(path) | {"code_digest": "0" * 16})
    text = checkout.snakemake("--cores", "1", "plan").stdout
    assert "1 runs to measure" in text and "1 more were, by other code or protocol" in text
    checkout.campaign["protocol"]["window_s"] = 20
    checkout.save()
    assert "3 runs to measure" in refused(checkout, "plan")[1]


def test_what_cannot_fit_in_memory_is_refused_before_anything_runs(checkout):
    checkout.campaign["protocol"] = {"device": "cuda"}
    checkout.campaign["plan"] = {"memory_gib": 0.001}
    checkout.save()
    done = checkout.snakemake("--cores", "1", check=False)
    assert done.returncode and "Traceback" not in done.stdout
    assert "3 runs cannot fit in the memory of a device; leave them out" in done.stdout
    assert "of 0.001 GiB" in done.stdout and not (checkout.root / "results").exists()
