"""The hardware check as a whole process, on a fake GPU whose truth is known and whose loads are its waveforms."""

import os
import subprocess
import sys

import pytest
from fake_nvml.driver import DELAY, FakeNode, build, constant
from fake_nvml.load import CONTEXT_W, HIGH_W, IDLE_W, WAIT_W
from jouleline.hardware import findings as hardware
from paths import TESTS

TICK_S, REFRESH_S, GAIN, SLOW_CALL_S = 0.1, 0.08, 0.97, 0.004
SCRIPT = TESTS.parent / "scripts" / "check_hardware.py"


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """{kind of counter: folder of a finished check}; both checks run at once."""
    folder = tmp_path_factory.mktemp("hardware")
    libraries = build(folder / "libraries")
    started = {}
    for kind, window_s in (("true", 0.0), ("part_time", 0.025)):
        node = FakeNode(folder / kind, libraries)
        gpu = node.gpus[0]
        gpu.waves(constant(0.0, IDLE_W))
        gpu.tick_s, gpu.refresh_s, gpu.counter_gain, gpu.counter_window_s = TICK_S, REFRESH_S, GAIN, window_s
        node.fault("nvmlDeviceGetTemperature", kind=DELAY, seconds=SLOW_CALL_S)
        node.fault("nvmlDeviceGetUtilizationRates", code=3)
        command = [sys.executable, str(SCRIPT), "--out", str(folder / kind / "out"), "--minutes", "0.5"]
        command += ["--load", f"{sys.executable} -m fake_nvml.load {node.path}"]
        path = os.pathsep.join([str(TESTS), str(TESTS.parent / "workflow")])
        started[kind] = subprocess.Popen(
            command,
            env=node.environment(PYTHONPATH=path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    for process in started.values():
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return {kind: folder / kind / "out" for kind in started}


@pytest.fixture(scope="module")
def found(checked):
    return {kind: hardware.findings(hardware.load(out)) for kind, out in checked.items()}


def test_tick_and_refresh_are_recovered(found):
    assert found["true"]["tick_s"] == pytest.approx(TICK_S, rel=0.01)
    assert found["true"]["refresh_instant_s"] == pytest.approx(REFRESH_S, rel=0.02)


def test_the_power_of_each_load_and_the_gain_are_recovered(found):
    powers = found["true"]["powers"]
    for phase, power_w in (
        ("bare_idle", IDLE_W), ("context_idle", CONTEXT_W), ("constant", HIGH_W), ("active_wait", WAIT_W)
    ):  # fmt: skip
        assert powers[phase]["counter"] == pytest.approx(GAIN * power_w, rel=0.05), phase
        assert powers[phase]["instant"] == pytest.approx(power_w, rel=0.01), phase
    assert found["true"]["counter_over_average"]["relative"] == pytest.approx(GAIN - 1, abs=0.01)


def test_a_counter_that_sums_a_part_of_each_tick_is_recognised(found):
    assert found["true"]["waves"]["true_integral"] is True
    assert found["part_time"]["waves"]["true_integral"] is False


def test_latencies_and_what_is_not_supported_are_told(checked, found):
    rows = {(row["call"], row["state"]): row for row in found["true"]["latencies"]}
    slow = rows["nvmlDeviceGetTemperature 0", "loaded"]
    assert 1e6 * SLOW_CALL_S <= slow["median_us"] < 30e6 * SLOW_CALL_S
    assert rows["fields 83+186 (fast lane)", "idle"]["median_us"] < 1e6 * SLOW_CALL_S
    assert not any(call.startswith("nvmlDeviceGetUtilizationRates") for call, _ in rows)
    support = hardware.load(checked["true"]).support
    codes = dict(zip(support["call"], support["code"]))
    assert codes["nvmlDeviceGetUtilizationRates"] == 3 and codes["field 83 scope 0"] == 0


def test_the_report_says_what_it_means_for_the_defaults(checked):
    for kind, answer in (("true", "yes"), ("part_time", "**no**")):
        text = (checked[kind] / "report.md").read_text()
        row = next(line for line in text.splitlines() if line.startswith("| counter is a true integral"))
        assert row.endswith(f"| {answer} |")
        assert "| refresh of the instant power | 80.0 ms |" in text  # not the 100 ms that is assumed
        assert (checked[kind] / "readings.svg").read_text().lstrip().startswith("<?xml")
    slowdowns = hardware.findings(hardware.load(checked["true"]))["slowdown"]
    assert [row["period_ms"] for row in slowdowns] == [100, 50, 20, 10]


def test_without_a_gpu_there_is_one_clear_line(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 3 and done.stderr.startswith("error: no NVML") and done.stderr.count("\n") == 1
