"""Idle and calibration powers on a node with (fake) GPUs: measured by the counter, and called so."""

import json
import subprocess
import sys

import pytest
from fake_nvml.driver import constant
from paths import SCRIPTS


def run(script: str, node, *options: str) -> None:
    protocol = json.dumps({"device": "cpu", "meter": "nvml"})
    command = [sys.executable, SCRIPTS / f"{script}.py", "--protocol", protocol, *options]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def powered(node):
    fake = node(2)
    for gpu, power_w in enumerate((60.0, 90.0)):
        fake.gpus[gpu].waves(constant(0.0, power_w))
    return fake


def test_idle_power_is_measured_on_each_gpu(powered, tmp_path):
    run("measure_idle", powered, "--out", str(tmp_path / "idle.json"))
    found = json.loads((tmp_path / "idle.json").read_text())
    assert found["meter"] == "nvml"
    assert "estimate" not in found["method"]
    powers = {one["uuid"]: one["idle_power_w"] for one in found["devices"]}
    assert powers[powered.uuid(0)] == pytest.approx(60.0, rel=0.02)
    assert powers[powered.uuid(1)] == pytest.approx(90.0, rel=0.02)


def test_calibration_takes_its_powers_from_the_counter(powered, tmp_path):
    out = tmp_path / "device.json"
    run("calibrate_node", powered, "--out", str(out), "--budget-s", "5")
    powers = {
        item["quantity"]: item for item in json.loads(out.read_text())["quantities"] if item["unit"] == "W"
    }
    # The ranks are CPU processes, which report no GPU: their regions hold for all GPUs of the node.
    for name in ("idle_power_w", "context_idle_power_w", "memory_bound_power_w", "compute_bound_power_w"):
        assert powers[name]["value"] == pytest.approx(150.0, rel=0.02), name
        assert powers[name]["method"].startswith("nvml_counter")
        assert 0 < powers[name]["u_rel"] < 0.1


HOLDS = """
import json
from jouleline.measure.calibrate import node as calibrate
from jouleline.campaign.protocol import complete_protocol
calibrate.choose_device = lambda _: "cuda"
print(json.dumps(calibrate.holds_for(complete_protocol({}), 60.0)))
"""


def test_a_calibration_of_gpus_holds_for_their_type_and_limit_and_for_no_part_of_one(node):
    def holds(**state):
        fake = node(2)
        for gpu in fake.gpus:
            for name, value in state.items():
                setattr(gpu, name, value)
        done = subprocess.run(
            [sys.executable, "-c", HOLDS], env=fake.environment(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    plain = holds()
    assert len(plain["devices"]) == 2 and plain["software"]["driver"]
    assert holds(temperature_c=70.0) == plain
    assert holds(limit_w=500.0) != plain
    assert holds(mig_slices=2) is None
