"""From records and regions to the runs table, and what the checks make of it."""

import copy
import json

import pytest
from jouleline.campaign import grid
from jouleline.campaign.protocol import complete_protocol
from jouleline.errors import UserError
from jouleline.files import write_json
from jouleline.reduce import checks, disturbances
from jouleline.reduce import runs as tables
from jouleline.schemas import read_table, to_arrow, write_table
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.energy import REGIONS
from jouleline.schemas.runs import RUNS

ROW = {"layers": 2, "hidden": 64, "heads": 2, "intermediate": 256, "seq_len": 32, "micro_batch": 4}
RUN = grid.expand({"rows": [{**ROW, "gpus_per_node": 2, "zero_stage": 1}]}, "cpu", 2)[0]
PROTOCOL = complete_protocol({})
TRAINING = {
    **{
        "steps": 40,
        "time_s": 4.0,
        "samples": 40 * 8,
        "tokens": 40 * 8 * 32,
        "loss_first": 0.7,
        "loss_last": 0.5,
    },
    **{"accuracy": 0.8, "num_labels": 7, "warmup_step_times_s": [0.2, 0.101, 0.1, 0.1, 0.1]},
}
RECORD = {
    **{"schema": 1, "run_id": RUN.run_id, "row": RUN.row, "status": "ok", "reason": None},
    "environment": {"host": "n1", "device": "Test CPU"},
    "protocol": PROTOCOL | {"warmup_steps": 2},
    "nodes": [{"cooldown": {"temperature_c": degrees}} for degrees in (41.0, None, 43.0)],
    "training": TRAINING,
}
WINDOW = dict.fromkeys(REGIONS.names) | {
    **{"run_id": RUN.run_id, "region": "window", "time_s": 4.001, "energy_j": 100.0, "energy_source": "rapl"},
    **{"energy_edge_u_j": 0.3, "energy_gap_u_j": 0.4, "idle_power_w": 5.0, "mean_power_w": 25.0},
    **{"covered_fraction": 1.0, "longest_gap_s": 0.03, "verdict": "valid", "reasons": ""},
}


@pytest.fixture
def campaign(tmp_path):
    """A folder with the expanded grid of one run, and what to write its record with."""
    grid.write([RUN], "test", tmp_path / "grid.json")
    return tmp_path


def collect(folder, record=RECORD, regions=(WINDOW,), name="run.json", slurm=None):
    write_json(folder / "runs" / RUN.run_id / name, record)
    grid_json = json.loads((folder / "grid.json").read_text())
    return tables.collect(grid_json, regions, folder / "runs", {RUN.run_id: slurm} if slurm else {})[0]


def test_a_run_becomes_a_row_of_every_column(campaign):
    (row,) = collect(campaign)
    assert set(row) <= set(RUNS.names)
    assert (row["device_count"], row["data_parallel"], row["num_labels"]) == (2, 2, 7)
    assert row["energy_j"] == 100.0 and row["energy_edge_u_j"] == pytest.approx(0.5)
    assert row["verdict"] == "valid" and row["family"].startswith("bert-L2")
    write_table(RUNS, [row], campaign / "runs.parquet")
    assert read_table(RUNS, campaign / "runs.parquet")[0]["tokens"] == 40 * 8 * 32
    field = to_arrow(RUNS, [row]).schema.field("energy_j")
    assert field.metadata[b"unit"] == b"J" and field.metadata[b"description"]


def test_a_failed_run_is_listed_with_its_reason_and_null_numbers(campaign):
    record = {**RECORD, "status": "failed", "reason": "rank_killed", "training": None}
    (row,) = collect(campaign, record, (), "run.failed.json")
    assert (row["status"], row["verdict"], row["reasons"]) == ("failed", "invalid", "rank_killed")
    assert row.get("energy_j") is None and row["time_s"] is None


def test_a_run_without_a_window_is_invalid_and_one_never_tried_is_not_listed(campaign):
    (row,) = collect(campaign, regions=())
    assert row["verdict"] == "invalid" and row["reasons"] == "no_measured_window"
    (campaign / "runs" / RUN.run_id / "run.json").unlink()
    assert tables.collect(json.loads((campaign / "grid.json").read_text()), (), campaign / "runs", {}) == (
        [],
        [],
    )


def test_a_run_of_another_row_is_refused(campaign):
    other = {**RECORD, "row": {**RUN.row, "layers": 3}}
    with pytest.raises(UserError, match="differs in layers.*--forcerun"):
        collect(campaign, other)


def test_a_record_older_than_a_column_is_taken(campaign):
    old = {name: value for name, value in RUN.row.items() if name != "lora_targets"}
    assert len(collect(campaign, {**RECORD, "row": old})) == 1


def found(campaign, training=(), window=(), protocol=PROTOCOL):
    record = copy.deepcopy(RECORD)
    record["training"] |= dict(training)
    regions = [WINDOW | dict(window)]
    rows = checks.check_runs(collect(campaign, record, regions), regions, protocol)
    to_arrow(CHECKS, rows)
    return {row["name"]: row for row in rows}, checks.excluded(rows)


def test_a_good_run_passes_every_check_that_can_be_decided(campaign):
    results, excluded = found(campaign)
    assert not [name for name, row in results.items() if row["passed"] is False]
    assert {name for name, row in results.items() if row["passed"] is None} == {
        "slurm_agrees",
        "replicates_agree",
        "started_cool",
        "cpus_as_given",
        "settings_as_usual",
    }
    assert excluded == {}


@pytest.mark.parametrize(
    ("name", "training", "window"),
    [
        ("energy_known", {}, {"energy_j": None, "verdict": "invalid", "reasons": "counter_reset"}),
        ("energy_known", {}, {"verdict": "invalid", "reasons": "gap"}),
        ("clocks_agree", {"time_s": 5.0}, {}),
        ("work_as_asked", {"samples": 40 * 4, "tokens": 40 * 4 * 32}, {}),
        ("work_as_asked", {"tokens": 40 * 8 * 31}, {}),
        ("loss_finite", {"loss_last": None}, {}),
        ("compute_plausible", {"time_s": 4e-9}, {"time_s": 4e-9}),
    ],
)
def test_an_error_keeps_the_run_out_of_the_fit(campaign, name, training, window):
    results, excluded = found(campaign, training, window)
    assert results[name]["passed"] is False and results[name]["severity"] == "error"
    assert name in excluded[RUN.run_id]


@pytest.mark.parametrize(
    ("name", "training", "window"),
    [
        ("energy_measured", {}, {"energy_source": "estimate"}),
        ("energy_undegraded", {}, {"verdict": "degraded", "reasons": "alias_risk"}),
        ("window_long_enough", {"time_s": 1.0}, {"time_s": 1.0}),
        ("window_covered", {}, {"covered_fraction": 0.5}),
        ("edges_small", {}, {"energy_edge_u_j": 9.0}),
        ("power_above_idle", {}, {"mean_power_w": 3.0}),
        ("warmup_steady", {"warmup_step_times_s": [0.12, 0.12, 0.1, 0.1]}, {}),
        ("warmup_steady", {"warmup_step_times_s": [0.1]}, {}),  # too short to say
    ],
)
def test_a_warning_is_told_and_the_run_is_kept(campaign, name, training, window):
    results, excluded = found(campaign, training, window)
    assert results[name]["passed"] is False and results[name]["severity"] == "warning"
    assert excluded == {}


def test_a_run_that_began_above_the_start_temperature_is_pointed_out(campaign):
    (row,) = collect(campaign)
    assert row["start_temperature_c"] == 43.0  # of the hottest node that has a sensor
    for limit_c, passed in ((42.0, False), (43.0, True)):
        results, excluded = found(campaign, protocol=PROTOCOL | {"start_temperature_c": limit_c})
        assert results["started_cool"]["passed"] is passed and excluded == {}


def test_cpus_that_a_rank_lost_and_debugging_switches_are_pointed_out(campaign):
    ranks = [{"cpus": 8, "foreign_cores": 0.1}, {"cpus": 1, "foreign_cores": 0.2}]
    for cpus, variables, good in (
        (8, {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}, False),
        (1, {"OMP_X": "1"}, True),
    ):
        record = copy.deepcopy(RECORD)
        record["nodes"] = [{"cpus": cpus, "ranks": ranks[1:] if good else ranks}]
        record["environment"] |= {"variables": variables, "cpu_count": 8, "device_kind": "cpu"}
        (row,) = collect(campaign, record)
        assert (row["verdict"], row["foreign_cores"]) == ("valid", 0.2)
        results = {one["name"]: one for one in checks.check_runs([row], [WINDOW], PROTOCOL)}
        for name in ("cpus_as_given", "settings_as_usual"):
            assert (results[name]["passed"], results[name]["severity"]) == (good, "warning")
    assert "OMP_X" not in (row["slow_settings"] or "")


@pytest.mark.parametrize(
    ("name", "value", "slow"),
    [
        ("TORCH_DISTRIBUTED_DEBUG", "DETAIL", True),
        ("TORCH_DISTRIBUTED_DEBUG", "OFF", False),
        ("CUDA_LAUNCH_BLOCKING", "1", True),
        ("CUDA_LAUNCH_BLOCKING", "0", False),
        ("NCCL_DEBUG", "INFO", True),
        ("NCCL_DEBUG", "WARN", False),
        ("NCCL_SOCKET_IFNAME", "ib0", False),
        ("TORCH_CPP_LOG_LEVEL", "ERROR", False),
        ("ATEN_CPU_CAPABILITY", "default", True),
        ("ATEN_CPU_CAPABILITY", "avx512", False),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", True),
        ("ONEDNN_MAX_CPU_ISA", "ALL", False),
        ("MKL_CBWR", "COMPATIBLE", True),
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2", True),
        ("NVIDIA_TF32_OVERRIDE", "0", True),
        ("NVIDIA_TF32_OVERRIDE", "1", True),
        ("LD_AUDIT", "trace.so", True),
        ("LD_LIBRARY_PATH", "lib", False),
    ],
)
def test_a_variable_is_known_to_slow_a_run_down_by_its_value(name, value, slow):
    assert disturbances.slow_settings({name: value}) == (f"{name}={value}" if slow else "")


@pytest.mark.parametrize(
    ("kind", "foreign_cores", "verdict"),
    [("cpu", 0.5, "valid"), ("cpu", 1.0, "degraded"), ("cuda", 5.9, "valid"), ("cuda", 6.5, "degraded")],
)
def test_load_of_others_is_a_reason_of_the_verdict(campaign, kind, foreign_cores, verdict):
    """The job has 8 CPUs and 2 ranks: on a GPU these need a CPU each, on a CPU any load of others is in the energy."""
    record = copy.deepcopy(RECORD)
    record["environment"] |= {"cpu_count": 8, "device_kind": kind}
    record["nodes"] = [{"ranks": [{"foreign_cores": foreign_cores}, {"foreign_cores": None}]}]
    (row,) = collect(campaign, record)
    assert (row["verdict"], row["reasons"]) == (verdict, "" if verdict == "valid" else "foreign_load")


def test_the_drift_of_the_warm_up_is_that_of_its_last_two_chunks(campaign):
    (row,) = collect(campaign)
    assert row["warmup_drift_rel"] == pytest.approx(0.0005 / 0.1005)


def test_replicates_that_differ_are_pointed_out(campaign):
    (row,) = collect(campaign)
    assert (row["replicates"], row["energy_cv"], row["time_cv"]) == (1, None, None)
    changes = {"energy_j": 150.0, "time_s": 5.0}
    twin = {**row, "run_id": row["run_id"].replace("-r1", "-r2"), **changes}
    lost = {**row, "run_id": row["run_id"].replace("-r1", "-r3"), "energy_j": None}
    other = {**row, "run_id": "another-r1"}
    tables.add_noise_floor([row, twin, lost, other])
    for one in (row, twin, lost):
        assert one["replicates"] == 2
        assert one["energy_cv"] == pytest.approx(25 * 2**0.5 / 125)  # 100 and 150 J
        assert one["time_cv"] == pytest.approx(0.5 * 2**0.5 / 4.5)  # 4 and 5 s
    assert (other["replicates"], other["energy_cv"]) == (1, None)
    results = checks.check_runs([row, twin], [WINDOW, WINDOW | {"run_id": twin["run_id"]}], PROTOCOL)
    assert [r["passed"] for r in results if r["name"] == "replicates_agree"] == [False, False]


def test_slurms_own_figure_is_compared(campaign):
    slurm = {"step": "7.0", "submit_s": 1.0, "start_s": 2.0, "end_s": None, "energy_j": 50.0}
    clocks = {"started_utc": "2026-01-02T03:04:05Z", "ended_utc": "2026-01-02T03:04:35Z"}
    environment = {**RECORD["environment"], "slurm": {"SLURM_JOB_ID": "7"}}
    (row,) = collect(campaign, {**RECORD, **clocks, "environment": environment}, slurm=slurm)
    assert row["slurm_job_id"] == "7"  # by which a centre joins the table with its own accounting
    rows = checks.check_runs([row], [WINDOW], PROTOCOL)
    assert row["slurm_energy_j"] == 50.0
    assert next(r for r in rows if r["name"] == "slurm_agrees")["passed"] is False
