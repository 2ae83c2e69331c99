"""What a runs table may hold, and the one line that says what is wrong with it."""

import re

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.table import checks
from jouleline.model.table import runs as table
from jouleline.schemas.runs import ASKED_BOUNDS, MEASURED_BOUNDS, RUNS


def raw(**changes):
    columns = {
        "device": ["A", "A"],
        "device_count": [1, 2],
        "tensor_parallel": [1, 1],
        "zero_stage": [0, 3],
        "layers": [2, 2],
        "hidden": [64, 64],
        "heads": [2, 2],
        "intermediate": [256, 256],
        "seq_len": [64, 64],
        "micro_batch": [8, 8],
        "precision": ["fp32", "fp32"],
        "steps": [10, 10],
        "time_s": [1.0, 1.2],
        "energy_j": [10.0, 22.0],
    }
    return columns | changes


def test_defaults_and_derived_columns():
    columns = table.complete(raw(), "t")
    assert columns["data_parallel"].tolist() == [1, 2]
    assert columns["tokens"].tolist() == [10 * 8 * 64, 2 * 10 * 8 * 64]
    assert columns["optimizer"].tolist() == ["adamw", "adamw"]
    assert columns["energy_source"].tolist() == ["outside", "outside"]
    assert columns["run_id"].tolist() == ["row-00001", "row-00002"]


def test_a_family_is_workload_and_device_whatever_the_count_and_strategy():
    families = table.complete(raw(), "t")["family"]
    assert families[0] == families[1]
    for change in (
        {"device": ["A", "B"]},
        {"micro_batch": [8, 16]},
        {"lora_rank": [0, 8]},
        {"precision": ["fp32", "bf16"]},
    ):
        families = table.complete(raw(**change), "t")["family"]
        assert families[0] != families[1], change


def test_a_family_does_not_depend_on_the_number_type():
    assert table.family_name({"layers": 2, "hidden": 64}) == table.family_name(
        {"layers": 2.0, "hidden": np.int64(64)}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy_j": [10.0, 0.0]}, "energy_j is 0.0 in row 2"),
        ({"energy_j": [-3.0, 1.0]}, "energy_j is -3.0 in row 1"),
        ({"time_s": [1.0, float("nan")]}, "time_s is nan in row 2"),
        ({"energy_j": [10.0, None]}, "energy_j is nan in row 2"),
        ({"energy_j": [10.0, "10 J"]}, "energy_j is '10 J' in row 2; give a number"),
        ({"layers": [2, "two"]}, "layers is 'two' in row 2; give a number"),
        ({"layers": [2, 2.5]}, "layers is 2.5 in row 2; give a whole number"),
        ({"layers": [None, 2.5]}, "layers is 2.5 in row 2; give a whole number"),
        ({"layers": [2, [2]]}, r"layers is \[2\] in row 2; give a number"),
        ({"layers": [2, 10**400]}, "layers is 10+... in row 2; give a number"),
        ({"layers": [2, 0]}, "layers is 0 in row 2; it must be 1 to 10000"),
        ({"tensor_parallel": [1, 3]}, "tensor_parallel is 3 in row 2"),
        ({"energy_source": ["nvml", "rapl"]}, "energy_source is 'nvml' in row 1"),
        ({"device": ["A", None]}, "device is None in row 2"),
        ({"device": ["A", ["B"]]}, "device is .* in row 2; give text"),
        ({"run_id": ["a", "a"]}, "run_id a stands twice"),
        ({"gradient_checkpointing": [True, "maybe"]}, "gradient_checkpointing is 'maybe' in row 2"),
        ({"data_parallel": [1, 16]}, "data_parallel is 16.* in row 2 .*; with tensor_parallel"),
        ({"nodes": [1, 7]}, "nodes is 7 in row 2 .*; it must divide device_count"),
        ({"gpus_per_node": [1, 8]}, "gpus_per_node is 8.* in row 2 .*; with nodes"),
        ({"frozen_layers": [2, 3]}, "frozen_layers is 3 in row 2 .*; it cannot be more than layers"),
        # kWh, Wh, mJ and ms instead of J and s
        ({"energy_j": [100 / 3.6e6, 100.0]}, "energy_j / time_s per device is 2.77.* in row 1 .*1 kWh"),
        ({"energy_j": [200 / 3600, 200.0]}, "energy_j / time_s per device is 0.055.* in row 1"),
        ({"energy_j": [200.0, 350e3]}, "energy_j / time_s per device is 145833.* in row 2"),
        ({"time_s": [1.0, 1200.0]}, "energy_j / time_s per device is 0.0091.* in row 2 .* 1 ms"),
        ({"steps": [10, 10**12], "grad_accum": [1, 10**6]}, "samples is .* in row 2"),
    ],
)
def test_bad_values_are_one_line_with_the_row(change, message):
    with pytest.raises(UserError, match=message) as error:
        table.complete(raw(**change), "t")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*ASKED_BOUNDS, *MEASURED_BOUNDS])
def test_every_number_has_bounds_on_both_sides(name):
    low, high = (ASKED_BOUNDS | MEASURED_BOUNDS)[name]
    for beyond in (-np.inf, min(low - 1, 2 * low), 2 * high, np.inf):
        with pytest.raises(UserError, match=rf"t: {name} is .* in row 2"):
            table.complete(raw(**{name: [None if name not in raw() else raw()[name][0], beyond]}), "t")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"energy_j": [200.0, 400.0]}, None),
        ({"time_s": [1.0, 1.0], "energy_j": [0.3, 0.6]}, "devices take 0.3 W"),  # kJ
        ({"time_s": [1000.0, 1000.0], "energy_j": [300.0, 600.0]}, "devices take 0.3 W"),  # ms
        ({"time_s": [1.0, 1.0], "energy_j": [3e3, 9e3]}, "devices take 3.75e[+]03 W"),
    ],
)
def test_units_that_are_possible_and_odd_are_told(capsys, change, said):
    checks.note_power(table.complete(raw(**change), "t"), "t")
    error = capsys.readouterr().err
    assert re.search(said, error) if said else not error


def test_bounds_are_of_every_number_and_of_nothing_else():
    numbers = {column.name for column in RUNS.columns if column.type not in {"string", "bool"}}
    assert {*ASKED_BOUNDS, *MEASURED_BOUNDS} == numbers


def test_a_run_that_failed_before_it_knew_its_device_stops_no_fit():
    columns = table.complete(raw(device=["A", None], energy_j=[10.0, None], status=["ok", "failed"]), "t")
    assert columns["device"].tolist() == ["A", None]
    assert table.usable(columns).tolist() == [True, False]


def test_missing_columns_are_named():
    columns = raw()
    del columns["heads"]
    with pytest.raises(UserError, match="lacks the required columns heads.*it has device, device_count"):
        table.complete(columns, "t")


@pytest.mark.parametrize("value", [True, "true", "YES", 1, 1.0, "1", "1.0"])
def test_truth_is_written_in_many_ways(value):
    other = "no" if isinstance(value, str) else None
    columns = table.complete(raw(gradient_checkpointing=[value, other]), "t")
    assert columns["gradient_checkpointing"].tolist() == [True, False]


def test_rows_that_are_not_valid_may_lack_their_energy():
    columns = table.complete(raw(energy_j=[10.0, None], status=["ok", "oom"]), "t")
    assert table.usable(columns).tolist() == [True, False]
    assert table.unusable(columns) == [{"run_id": "row-00002", "reason": "status oom"}]


def test_sources_are_never_mixed():
    table.one_source(table.complete(raw(energy_source=["nvml_counter", "nvml_power"]), "t"))
    for pair in (["nvml_counter", "estimate"], ["nvml_counter", "rapl"], ["outside", "estimate"]):
        with pytest.raises(UserError, match="mixed energy sources"):
            table.one_source(table.complete(raw(energy_source=pair), "t"))


def test_joules_of_different_scopes_are_never_mixed():
    outside = table.complete(raw(), "t")
    assert outside["energy_scope"].tolist() == [None, None]  # may hold anything
    assert table.complete(raw(energy_source=["rapl"] * 2), "t")["energy_scope"].tolist() == ["node", "node"]
    with pytest.raises(UserError, match="different scopes .device, wall. cannot be fitted together"):
        table.one_source(table.complete(raw(energy_scope=["wall", "device"]), "t"))
    with pytest.raises(UserError, match="energy_scope is 'rack' in row 1.*use one of device, node, wall"):
        table.complete(raw(energy_scope=["rack", None]), "t")


def test_tables_that_nothing_can_be_learned_from():
    with pytest.raises(UserError, match="has 2 usable rows; at least"):
        table.require_variation(table.complete(raw(), "t"), "t")
    columns = synthetic.table(20)
    with pytest.raises(UserError, match="has 1 family"):
        table.require_variation({**columns, "family": np.full(20, "one", dtype=object)}, "t")
    with pytest.raises(UserError, match="energy_j is constant"):
        table.require_variation({**columns, "energy_j": np.full(20, 3.0)}, "t")


def test_digest_knows_content_not_order():
    columns = synthetic.table(10)
    turned = table.take(columns, np.arange(10)[::-1])
    assert table.digest(columns) == table.digest(turned)
    changed = {**columns, "energy_j": columns["energy_j"] * 1.0000001}
    assert table.digest(columns) != table.digest(changed)
