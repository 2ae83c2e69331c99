"""The lane that reads the state hangs: what it would have read is unknown, and this is reported."""

import subprocess
import time

import pytest
from fake_nvml.driver import HANG, constant
from fake_nvml.session import Session, codes


@pytest.mark.fault(
    "the call for the temperature hangs, for good",
    "`slow_calls`, `unchecked_state`, `unchecked_average`; state null, energy exact",
)
@pytest.mark.parametrize("gpus", [1, 2])
def test_state_that_hangs(node, tmp_path, gpus):
    n = node(gpus)
    for gpu in n.gpus:
        gpu.waves(constant(0, 300))
    session = Session(n, tmp_path / "out")
    with session.region("before"):
        time.sleep(1.5)
    n.fault("nvmlDeviceGetTemperature", HANG, gpu=0, from_s=n.now_s())
    time.sleep(4.0)
    hot = n.gpus[0]
    hot.throttle_field, hot.throttle_from_s, hot.throttle_to_s = 270, n.now_s(), 1e9
    with session.region("window"):
        time.sleep(10.5)
    rows = session.finish()
    row = session.row(rows, 0)
    assert codes(session.row(rows, 0, "before")) == set()
    assert codes(row) >= {"slow_calls", "unchecked_state", "unchecked_average"}
    assert row["verdict"] == "degraded"
    assert row["temperature_end_c"] is None and row["throttle_thermal_fraction"] is None
    assert row["energy_j"] == pytest.approx(session.true_energy_j(0), rel=0.01)
    assert gpus == 1 or codes(session.row(rows, 1)) == set()


@pytest.mark.fault("a GPU that no process of the command used", "`unused_gpu`; the others have no note")
def test_a_gpu_that_nobody_used_is_noted(node, tmp_path):
    n = node(2)
    with subprocess.Popen(["sleep", "30"]) as used:
        n.gpus[0].pids[0], n.gpus[0].n_pids = used.pid, 1
        session = Session(n, tmp_path / "out")
        with session.region("window"):
            time.sleep(4)
        rows = session.finish()
        used.kill()
    assert codes(session.row(rows, 0)) == set() and codes(session.row(rows, 1)) == {"unused_gpu"}
    assert codes(session.row(rows)) == {"unused_gpu"} and session.row(rows)["verdict"] == "valid"


def test_a_driver_that_shows_no_processes_says_nothing_of_unused_gpus(node, tmp_path):
    """As in a container: on no GPU is any process seen."""
    session = Session(node(2), tmp_path / "out")
    with session.region("window"):
        time.sleep(4)
    assert codes(session.row(session.finish())) == set()
