"""What a campaign would cost: bounds from a data sheet, unknown said to be unknown, budgets refused."""

import csv

import pytest
from jouleline import grid, plan
from jouleline.config import DEFAULTS
from jouleline.errors import UserError
from jouleline.protocol import complete_protocol

SHAPE = {"hidden": 768, "heads": 12, "intermediate": 3072, "seq_len": 128, "micro_batch": 32}
GRID = {"rows": [{"layers": n, **SHAPE, "precision": "bf16", "gpus_per_node": n} for n in (1, 2)]}
ROWS = [{"run_id": run.run_id, **run.row} for run in grid.expand(GRID, "cuda", 4)]
PROTOCOL = complete_protocol({"window_s": 10})


def settings(**keys):
    return {**DEFAULTS["plan"], **keys}


def test_a_data_sheet_bounds_time_and_energy():
    lines = plan.estimate(ROWS, PROTOCOL, settings(device="h200", price_per_kwh=0.3, pue=1.5), None, 30.0)
    for line, devices in zip(lines, (1, 2), strict=True):
        assert line["source"] == "data sheet of h200"
        assert line["energy_lo_kwh"] < line["energy_kwh"] < line["energy_hi_kwh"]
        assert line["job_time_s"] >= 40 and line["device_hours"] == pytest.approx(
            line["job_time_s"] * devices / 3600
        )
        assert line["energy_hi_kwh"] <= 700 * devices * line["job_time_hi_s"] / 3.6e6 * (1 + 1e-9)
        assert line["cost"] == pytest.approx(line["energy_kwh"] * 1.5 * 0.3)
        assert line["co2_kg"] is None
    total = plan.totals(lines)
    assert total["energy_kwh"] == pytest.approx(sum(line["energy_kwh"] for line in lines))
    assert total["co2_kg"] is None


def test_what_nobody_knows_is_unknown():
    lines = plan.estimate(ROWS, PROTOCOL, settings(), None, 30.0)
    assert all(line["energy_kwh"] is None and line["source"] == "unknown" for line in lines)
    assert "unknown kWh" in plan.as_text(lines, plan.totals(lines), "EUR")
    cells = list(csv.DictReader(plan.as_csv(lines).splitlines()))
    assert cells[0]["energy_kwh"] == "" and cells[0]["run_id"] == ROWS[0]["run_id"]


@pytest.mark.parametrize("limit", [{"max_gpu_hours": 1e-6}, {"max_kwh": 1e-6}])
def test_a_budget_is_refused_when_exceeded_and_kept_otherwise(limit):
    lines = plan.estimate(ROWS, PROTOCOL, settings(device="h200"), None, 30.0)
    with pytest.raises(UserError, match="cut rows or raise it"):
        plan.require_budget(plan.totals(lines), settings(**limit))
    plan.require_budget(plan.totals(lines), settings(**dict.fromkeys(limit, 1000000.0)))


def test_an_unknown_cost_does_not_pass_a_budget():
    lines = plan.estimate(ROWS, PROTOCOL, settings(), None, 30.0)
    with pytest.raises(UserError, match="not known; name plan.device"):
        plan.require_budget(plan.totals(lines), settings(max_kwh=1))


def test_a_long_plan_is_cut_on_the_terminal_only():
    rows = [{**ROWS[0], "run_id": f"run-{i}"} for i in range(30)]
    lines = plan.estimate(rows, PROTOCOL, settings(device="h200"), None, 30.0)
    assert "... and 10 more" in plan.as_text(lines, plan.totals(lines), "EUR")
    assert len(plan.as_csv(lines).splitlines()) == 31
