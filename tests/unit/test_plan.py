"""What a campaign would cost: bounds from a data sheet, unknown values said to be unknown, budgets refused."""

import csv
import re

import pytest
from jouleline import architecture, plan
from jouleline.architecture import memory
from jouleline.campaign import grid
from jouleline.campaign.config import defaults
from jouleline.campaign.protocol import complete_protocol
from jouleline.errors import UserError
from jouleline.units import GIB

SHAPE = {"hidden": 768, "heads": 12, "intermediate": 3072, "seq_len": 128, "micro_batch": 32}
GRID = {"rows": [{"layers": n, **SHAPE, "precision": "bf16", "gpus_per_node": n} for n in (1, 2)]}
ROWS = [{"run_id": run.run_id, **run.row} for run in grid.expand(GRID, "cuda", 4)]
PROTOCOL = complete_protocol({"window_s": 10})


def settings(**keys):
    return {**defaults()["plan"], **keys}


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


def test_every_figure_has_its_range():
    prices = settings(device="h200", price_per_kwh=0.3, grid_gco2_per_kwh=400)
    total = plan.totals(plan.estimate(ROWS, PROTOCOL, prices, None, 30.0))
    ranges = [("device_hours_lo", "device_hours", "device_hours_hi"), ("cost_lo", "cost", "cost_hi")]
    for low, middle, high in [*ranges, ("co2_lo_kg", "co2_kg", "co2_hi_kg")]:
        assert total[low] <= total[middle] <= total[high] and total[low] < total[high]
    assert plan.as_text([], total, "EUR").count(" to ") == 4 + 1  # one in "runs to measure"


def test_the_roofline_of_the_data_sheet_is_the_slowest_of_compute_memory_and_links():
    small = {**ROWS[0], "micro_batch": 1, "seq_len": 4}  # moves its weights, and computes almost nothing
    protocol = complete_protocol({"window_s": 0.001, "window_steps": 100})

    def seconds(row):
        return plan.estimate([row], protocol, settings(device="h200"), None, 0.0)[0]["job_time_s"]

    proxies = architecture.proxies({**small, "device_count": 1, "data_parallel": 1})
    steps = 100 + 2 * protocol["warmup_steps"]
    assert proxies["memory_byte"] / 4.8e12 > proxies["compute_flop"] / 989e12
    assert seconds(small) == pytest.approx(steps * proxies["memory_byte"] / 4.8e12 / 0.35)
    large = {**ROWS[0], "micro_batch": 64, "seq_len": 512, "hidden": 4096, "intermediate": 16384}
    proxies = architecture.proxies({**large, "device_count": 1, "data_parallel": 1})
    assert proxies["compute_flop"] / 989e12 > proxies["memory_byte"] / 4.8e12
    assert seconds(large) == pytest.approx(steps * proxies["compute_flop"] / 989e12 / 0.35)


def test_a_device_without_a_data_sheet_is_told():
    with pytest.raises(UserError, match="no data sheet of plan.device 'h9000'"):
        plan.estimate(ROWS, PROTOCOL, settings(device="h9000"), None, 30.0)


def llm(**change):
    row = {"model": "llama-3.1-8b", "seq_len": 2048, "micro_batch": 1, "precision": "bf16", **change}
    return [{"run_id": run.run_id, **run.row} for run in grid.expand({"rows": [row]}, "cuda", 8)]


@pytest.mark.parametrize(
    ("change", "plan_of", "verdict", "said"),
    [
        ({"lora_rank": 16, "gpus_per_node": 8}, {"device": "h100"}, plan.FITS, None),
        ({}, {"device": "h100"}, plan.TOO_LARGE, "of 80 GiB, 105 of them weights.*LoRA"),
        ({}, {"device": "h100", "memory_gib": 400}, plan.FITS, None),
        ({"gpus_per_node": 8, "zero_stage": 3}, {"memory_gib": 24}, plan.TIGHT, "up to .* of 24 GiB"),
        (
            {"lora_rank": 16, "micro_batch": 64},
            {"device": "h100"},
            plan.TOO_LARGE,
            "activations; what helps: grad",
        ),
        ({}, {"device": "V100"}, None, None),
        ({}, {}, None, None),
    ],
)
def test_what_cannot_fit_in_memory_is_marked_with_its_largest_part(change, plan_of, verdict, said):
    (line,) = plan.memory(llm(**change), PROTOCOL, settings(**plan_of))
    assert line["memory"] == verdict
    assert (line["memory_gib"] is None) == (verdict is None)
    assert line["memory_note"] is None if said is None else re.search(said, line["memory_note"])


def test_only_what_is_held_for_certain_refuses_a_run():
    rows = llm(gpus_per_node=8, zero_stage=3)
    parts = memory.peak_memory({**rows[0], "device_count": 8, "data_parallel": 8})
    for share, verdict in ((0.99, plan.TOO_LARGE), (1.01, plan.TIGHT)):
        plan_of = settings(memory_gib=share * parts["floor"] / GIB)
        lines = plan.memory(rows, PROTOCOL, plan_of)
        assert lines[0]["memory"] == verdict
        if verdict == plan.TIGHT:
            plan.require_memory(lines, plan_of)
            continue
        with pytest.raises(
            UserError, match="1 run cannot fit in the memory of a device; leave .*\n  llama-L32"
        ):
            plan.require_memory(lines, plan_of)
        plan.require_memory(lines, {**plan_of, "refuse_memory": False})


def test_the_memory_of_a_cpu_is_not_checked_and_an_empty_plan_has_none():
    assert plan.memory(llm(), {**PROTOCOL, "device": "cpu"}, settings(memory_gib=1))[0]["memory"] is None
    assert plan.memory([], PROTOCOL, settings(memory_gib=1)) == []


def test_the_plan_of_a_campaign_tells_what_does_not_fit(tmp_path):
    lines, total = plan.campaign(tmp_path / "mine", llm(), {}, {}, settings(device="h100"), "roofline")
    assert "1 cannot fit in memory, such as llama-L32" in plan.as_text(lines, total, "EUR")
    (cells,) = csv.DictReader(plan.as_csv(lines).splitlines())
    assert cells["memory"] == "cannot fit" and float(cells["memory_gib"]) > 100
