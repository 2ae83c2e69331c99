"""Calibration as the pipeline runs it: the scripts as processes, on the CPUs of this machine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from jouleline.campaign.protocol import complete_protocol
from jouleline.measure.calibrate.node import holds_for
from jouleline.schemas import read_table
from jouleline.schemas.calibration import CALIBRATION, QUANTITIES
from paths import SCRIPTS

WATTS = {"estimate_w_per_core": 20.0, "estimate_idle_w": 3.0, "meter": "estimate", "device": "cpu"}


def run(script: str, *arguments: str, cpus: set[int] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, SCRIPTS / f"{script}.py", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
    )


def calibrate(folder: Path, budget_s: float, cpus: set[int] | None = None) -> dict:
    out = folder / "device.json"
    options = ("--protocol", json.dumps(WATTS), "--out", str(out), "--budget-s", str(budget_s))
    options += ("--known", str(folder / "known"))
    done = run("calibrate_node", *options, cpus=cpus)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    return folder, calibrate(folder, 10.0)


def value(calibration: dict, quantity: str, precision: str | None = None) -> float:
    found = [
        item["value"]
        for item in calibration["quantities"]
        if item["quantity"] == quantity and precision in (None, item["precision"])
    ]
    assert len(found) == 1, quantity
    return found[0]


def test_every_quantity_is_there_with_its_unit(node):
    _, found = node
    assert {item["quantity"] for item in found["quantities"]} == set(QUANTITIES)
    for item in found["quantities"]:
        assert item["unit"] == QUANTITIES[item["quantity"]][0]
        assert item["value"] is None or item["value"] > 0
        assert item["method"]
    assert found["device_kind"] == "cpu"


def test_the_same_device_and_software_are_not_measured_again(node, tmp_path):
    folder, found = node
    (kept,) = (folder / "known").glob("*.json")
    options = ("--protocol", json.dumps(WATTS | {"window_s": 9.0}), "--budget-s", "10")
    done = run(
        "calibrate_node", *options, "--known", str(folder / "known"), "--out", str(tmp_path / "other.json")
    )
    assert done.returncode == 0 and f"taken from {kept}, measured {found['measured_utc']}" in done.stderr
    assert json.loads((tmp_path / "other.json").read_text()) == found


def test_what_a_calibration_holds_for_is_all_that_changes_it():
    protocol = complete_protocol(WATTS)
    holds = holds_for(protocol, 10.0)
    assert holds_for(protocol | {"window_s": 9.0, "warmup_steps": 7}, 10.0) == holds
    for key, value in (
        ("threads_per_device", 2),
        ("estimate_idle_w", 4.0),
        ("idle_s", 2.0),
        ("meter", "rapl"),
    ):
        assert holds_for(protocol | {key: value}, 10.0) != holds, key
    assert holds_for(protocol, 20.0) != holds


def test_an_estimated_power_does_not_outlive_a_counter_that_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("JOULELINE_POWERCAP", str(tmp_path))
    protocol = complete_protocol({"device": "cpu"})
    before = holds_for(protocol, 10.0)
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("1\n")
    assert holds_for(protocol, 10.0) != before


def test_the_calibration_and_its_table_hold_the_same_rows(node):
    folder, found = node
    out, table = folder / "calibration.json", folder / "calibration.parquet"
    files = ("--node", str(folder / "device.json"), "--out", str(out), "--table", str(table))
    done = run("collect_calibration", *files, "--links")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text()) == found  # there are no links between nodes to add
    rows = read_table(CALIBRATION, table)
    assert [row["value"] for row in rows] == [item["value"] for item in found["quantities"]]
    assert {row["device"] for row in rows} == {found["device"]}


def best_s(run, repeats: int) -> float:
    """The shortest of many times: what others on the machine take of it only makes one longer."""
    times_s = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - begin)
    return min(times_s)


def test_work_is_counted_as_two_flop_per_multiplication_and_all_bytes_moved(node):
    _, found = node
    for precision in ("fp32", "bf16"):
        curve = [
            item
            for item in found["quantities"]
            if (item["quantity"], item["precision"]) == ("matmul_flops", precision)
        ]
        assert len(curve) >= 4
        assert [item["size"] for item in curve] == [2.0 * (32 << k) ** 3 for k in range(len(curve))]
        assert value(found, "peak_flops", precision) == max(item["value"] for item in curve)
    moved = {
        item["quantity"]: item["size"]
        for item in found["quantities"]
        if "memory_bandwidth" in item["quantity"]
    }
    assert moved == {"memory_bandwidth_copy": 2 * 2**27, "memory_bandwidth_triad": 3 * 2**27}
    assert value(found, "peak_flops", "fp16") is None


def test_rates_are_those_of_this_machine(node):
    """Beside another clock on the same kernels with as many threads. Others on the machine take a part of either rate
    at any moment, so that the two agree in their units only: a wrong one is a thousand times away."""
    _, found = node
    threads = torch.get_num_threads()
    torch.set_num_threads(found["software"]["threads_per_device"])
    try:
        a = torch.randn(256, 256)
        flop_s = 2 * 256**3 / best_s(lambda: torch.mm(a, a), 300)
        source, target = torch.zeros(2**25), torch.ones(2**25)
        byte_s = 2 * 2**27 / best_s(lambda: target.copy_(source), 15)
    finally:
        torch.set_num_threads(threads)
    assert flop_s / 20 < value(found, "peak_flops", "fp32") < 20 * flop_s
    assert byte_s / 20 < value(found, "memory_bandwidth_copy") < 20 * byte_s
    assert value(found, "launch_overhead_s") < value(found, "host_overhead_s") < 0.1


def test_declared_power_is_called_an_estimate_and_follows_the_load(node):
    _, found = node
    powers = [item for item in found["quantities"] if item["unit"] == "W" and item["value"] is not None]
    assert all(item["method"].startswith("estimate") for item in powers)
    assert found["meter"] == "estimate"
    # The program that waits for the idle stretch to end is counted too.
    assert 2.9 < value(found, "idle_power_w") < 3.0 + 0.1 * 20.0
    idle_w = value(found, "context_idle_power_w")
    assert idle_w < 3.0 + 0.3 * 20.0
    names = ("active_wait_host_power_w", "memory_bound_power_w", "compute_bound_power_w")
    # One core, of which others on the machine may take a part. Where they take too much, the power is null.
    powers_w = [power_w for power_w in (value(found, name) for name in names) if power_w is not None]
    assert powers_w and all(idle_w < power_w < 3.0 + 1.1 * 20.0 for power_w in powers_w)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a link needs two CPUs")
def test_links_are_measured_where_there_are_two_devices(node):
    _, found = node
    links = [item for item in found["quantities"] if item["quantity"].startswith("link_")]
    assert len(links) == 6
    for item in links:
        assert item["value"] > 0
        assert item["size"] == found["software"]["devices"] >= 2
    assert value(found, "active_wait_comm_power_w") > 0


def test_one_device_has_no_links_and_says_so(tmp_path):
    found = calibrate(tmp_path, 5.0, cpus={min(os.sched_getaffinity(0))})
    links = [item for item in found["quantities"] if "link_" in item["quantity"]]
    assert all(item["value"] is None and "one device" in item["method"] for item in links)
    assert value(found, "active_wait_comm_power_w") is None


def test_idle_power_is_the_declared_one_and_labelled(tmp_path):
    out = tmp_path / "idle.json"
    done = run("measure_idle", "--protocol", json.dumps(WATTS), "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["meter"] == "estimate"
    assert found["method"].startswith("estimate")
    assert found["devices"][0]["idle_power_w"] == pytest.approx(3.0, abs=0.1 * 20.0)


@pytest.mark.parametrize("script", ["calibrate_node", "measure_idle"])
@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"meter": "nvml", "device": "cpu"}, "nvml"),
        ({"colour": "blue"}, "protocol.colour is not known"),
        ([1], "must be a json object"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path, script, protocol, message):
    done = run(script, "--protocol", json.dumps(protocol), "--out", str(tmp_path / "out.json"))
    assert done.returncode != 0
    assert message in done.stderr.lower() and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
