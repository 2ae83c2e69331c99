"""Calibration as the pipeline runs it: the scripts as processes, on the CPUs of this machine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jouleline.schemas import read_table
from jouleline.schemas.calibration import CALIBRATION, QUANTITIES

SCRIPTS = Path(__file__).parents[3] / "scripts"
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
    out, table = folder / "calibration.json", folder / "calibration.parquet"
    options = ("--protocol", json.dumps(WATTS), "--out", str(out), "--table", str(table))
    done = run("calibrate_node", *options, "--budget-s", str(budget_s), cpus=cpus)
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
    assert len(found["digest"]) == 16


def test_the_table_holds_the_same_rows(node):
    folder, found = node
    rows = read_table(CALIBRATION, folder / "calibration.parquet")
    assert [row["value"] for row in rows] == [item["value"] for item in found["quantities"]]
    assert {row["device"] for row in rows} == {found["device"]}


def test_rates_are_those_of_this_machine(node):
    _, found = node
    a = np.ones((512, 512), np.float32)
    times_s = []
    for _ in range(20):
        begin = time.perf_counter()
        a @ a
        times_s.append(time.perf_counter() - begin)
    # numpy may use more threads, and the machine may be busy: the order of magnitude must agree.
    assert 0.1 < value(found, "peak_flops", "fp32") / (2 * 512**3 / min(times_s)) < 10
    assert 1e9 < value(found, "memory_bandwidth_copy") < 1e12
    assert value(found, "launch_overhead_s") < value(found, "host_overhead_s") < 0.1
    assert value(found, "peak_flops", "fp16") is None


def test_declared_power_is_called_an_estimate_and_follows_the_load(node):
    _, found = node
    powers = [item for item in found["quantities"] if item["unit"] == "W" and item["value"] is not None]
    assert all(item["method"].startswith("estimate") for item in powers)
    assert found["meter"] == "estimate"
    # The program that waits for the idle stretch to end is counted too.
    assert 2.9 < value(found, "idle_power_w") < 3.0 + 0.1 * 20.0
    idle_w = value(found, "context_idle_power_w")
    assert idle_w < 3.0 + 0.3 * 20.0
    for busy in ("active_wait_host_power_w", "memory_bound_power_w", "compute_bound_power_w"):
        # One core, of which others on the machine may take a part.
        assert idle_w < value(found, busy) < 3.0 + 1.1 * 20.0


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
        ([1], "must be an object"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path, script, protocol, message):
    table = ["--table", str(tmp_path / "t.parquet")] if script == "calibrate_node" else []
    done = run(script, "--protocol", json.dumps(protocol), "--out", str(tmp_path / "out.json"), *table)
    assert done.returncode != 0
    assert message in done.stderr.lower() and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
