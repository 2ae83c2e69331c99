"""The plan of a campaign by the newest fitted model, as the workflow calls it."""

import csv
import json

import pytest
import synthetic
from jouleline.campaign import grid
from jouleline.campaign.config import defaults
from jouleline.files import write_json
from jouleline.model.table.runs import write_runs
from programs import script

ROW = {"layers": 4, "hidden": 256, "heads": 4, "intermediate": 1024, "seq_len": 128, "micro_batch": 16}
ROW |= {"precision": "bf16"}  # as the model was trained
RUNS = grid.expand({"rows": [{**ROW, "replicates": 2}]}, "cuda", 4)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder in which the campaign `measured` has a fitted model, and `planned` nothing but its grid."""
    results = tmp_path_factory.mktemp("results")
    folder = results / "measured"
    write_runs(synthetic.table(28, device="NVIDIA H100 80GB HBM3"), folder / "tables/runs.parquet")
    runs, split = ("--runs", folder / "tables/runs.parquet"), folder / "all.json"
    assert script("split_runs", *runs, "--split", "all", "--options", "{}", "--out", split).returncode == 0
    options = ("--model", "roofline", "--options", '{"starts": 8}', "--out", folder / "fit/roofline/all.json")
    done = script("fit_model", *runs, "--split", split, *options)
    assert done.returncode == 0, done.stderr
    for campaign in ("measured", "planned"):
        grid.write(RUNS, campaign, results / campaign / "grid.json")
    return results


def plan(results, campaign, frugal=None, **settings):
    out = results / campaign / "plan.csv"
    words = {
        "grid": results / campaign / "grid.json",
        "protocol": '{"window_s": 10}',
        "code-digest": "0" * 16,
    }
    words |= {"plan": json.dumps({**defaults()["plan"], **settings}), "headline": "roofline", "out": out}
    words["frugal"] = json.dumps(frugal or {})
    done = script("plan_campaign", *(part for key, value in words.items() for part in (f"--{key}", value)))
    return done, list(csv.DictReader(out.read_text().splitlines()))


@pytest.mark.parametrize(("campaign", "device"), [("measured", None), ("planned", "h100")])
def test_the_model_of_the_campaign_or_of_another_one_on_the_device_plans(results, campaign, device):
    done, rows = plan(results, campaign, device=device, price_per_kwh=0.3)
    assert done.returncode == 0, done.stderr
    assert "measured/fit/roofline/all.json" in done.stdout and "2 runs to measure" in done.stdout
    for row in rows:
        assert float(row["energy_lo_kwh"]) < float(row["energy_kwh"]) < float(row["energy_hi_kwh"])
        assert float(row["cost"]) == pytest.approx(0.3 * float(row["energy_kwh"])) and row["co2_kg"] == ""
        assert float(row["job_time_s"]) > 10


def test_what_a_precision_takes_that_no_run_had_is_unknown(results):
    runs = grid.expand({"rows": [{**ROW, "precision": "fp32"}]}, "cuda", 4)
    grid.write(runs, "fp32", results / "fp32" / "grid.json")
    done, (row,) = plan(results, "fp32", device="h100")
    assert done.returncode == 0, done.stderr
    assert (
        row["energy_kwh"] == row["energy_lo_kwh"] == row["job_time_s"] == "" and "unknown kWh" in done.stdout
    )


def test_a_model_of_another_device_does_not_plan(results):
    done, rows = plan(results, "planned", device="a100")
    assert {row["source"] for row in rows} == {"data sheet of a100"} and done.returncode == 0
    done, rows = plan(results, "planned")
    assert {row["source"] for row in rows} == {"unknown"} and rows[0]["energy_kwh"] == ""


def test_a_plan_beyond_its_budget_is_shown_and_refused(results):
    done, rows = plan(results, "planned", device="h100", max_kwh=1e-9)
    assert done.returncode == 1 and done.stderr.startswith("error: the campaign needs ") and len(rows) == 2
    assert done.stderr.count("\n") == 1


def test_a_failed_run_is_still_to_be_measured_and_one_out_of_memory_is_not(results):
    record = {"protocol": {"window_s": 10.0}, "code_digest": "0" * 16, "wall_s": 30.0, "training": None}
    for run, name, status in zip(RUNS, ("run.failed.json", "run.json"), ("failed", "oom"), strict=True):
        write_json(
            results / "planned/runs" / run.run_id / name, {**record, "run_id": run.run_id, "status": status}
        )
    done, rows = plan(results, "planned", device="h100")
    assert [row["run_id"] for row in rows] == [RUNS[0].run_id], done.stderr


def test_a_choice_that_ended_at_other_limits_is_said_to_go_on(results):
    frugal = {"first": 8, "batch": 2, "until": {"rounds": 1}}
    ends = {"error": None, "kwh": None, "gpu_hours": None, "rounds": 1}
    ended = {"round": 1, "stopped": "1 rounds are done", "until": ends, "runs": []}
    write_json(results / "planned/rounds/1/rows.json", ended)
    done, _ = plan(results, "planned", device="h100", frugal=frugal)
    assert "No more runs will be chosen: 1 rounds are done" in done.stdout, done.stderr
    done, _ = plan(results, "planned", device="h100", frugal={**frugal, "until": {"rounds": 2}})
    assert (
        "No more" not in done.stdout and "other limits than those of now (1 rounds are done)" in done.stdout
    )
