"""GPUs that are slow to start, denied, or cut into slices, when the meter is opened."""

import json
import os
import time

import pytest
from fake_nvml.driver import DELAY, square
from fake_nvml.session import Session, codes, standard_u_j
from jouleline.measure.raw.markers import DEVICE


def load(node, gpu: int) -> None:
    node.gpus[gpu].waves(square(0.0, 150 + 50 * gpu, 450, 0.317, 0.4))


def measured(node, session, gpus) -> list[dict]:
    """The rows of a window of 1.5 s; the energies of `gpus` are right."""
    with session.region("window"):
        time.sleep(1.5)
    rows = session.finish()
    for gpu in gpus:
        row = session.row(rows, gpu)
        assert abs(row["energy_j"] - session.true_energy_j(gpu)) < 4 * standard_u_j(row)
    return rows


def job_uuids(session) -> list[str]:
    devices = json.loads((session.out / "ready.json").read_text())["devices"]
    return [device["uuid"] for device in devices if device["role"] == "job"]


@pytest.mark.fault("GPUs that the driver starts one after the other", "they are waited for, and it is said")
def test_a_node_without_persistence_mode(node, tmp_path):
    n = node(3)
    for gpu in range(3):
        load(n, gpu)
        n.gpus[gpu].persistence, n.gpus[gpu].init_s = 0, 2.0
    session = Session(n, tmp_path / "out")
    rows = measured(n, session, range(3))
    assert not codes(session.row(rows))
    said = session.process.stderr.read()
    assert said.startswith("note: waiting") and "persistence" in said and said.count("\n") == 1


@pytest.mark.fault("GPUs that NVML counts and a cgroup denies", "left out: CUDA does not count them either")
def test_denied_gpus_are_not_counted(node, tmp_path):
    n = node(4)
    for gpu in (0, 1, 2):
        n.gpus[gpu].denied = 1
    load(n, 3)
    session = Session(n, tmp_path / "out", CUDA_VISIBLE_DEVICES="0")
    assert session.ready, session.process.stderr.read()
    assert job_uuids(session) == [n.uuid(3)]
    rows = measured(n, session, [3])
    assert not codes(session.row(rows))


@pytest.mark.fault("MIG slice without CUDA_VISIBLE_DEVICES", "known by its digits: `mig_shared`")
def test_a_slice_that_cuda_names_like_a_gpu(node, tmp_path):
    n = node()
    n.gpus[0].mig_slices = 2
    load(n, 0)
    session = Session(n, tmp_path / "out")
    digits = ("aa000001" + n.uuid(0)[12:]).replace("-", "").encode()
    session.markers.write(DEVICE, time.monotonic_ns(), os.getpid(), 0, digits)
    rows = measured(n, session, [0])
    assert codes(session.row(rows)) == {"mig_shared"}


@pytest.mark.fault("driver that is slow while the GPU is opened", "the GPU is measured")
def test_a_driver_that_is_slow_at_first(node, tmp_path):
    n = node()
    load(n, 0)
    n.fault("nvmlDeviceGetClockInfo", DELAY, gpu=0, to_s=n.now_s() + 3, seconds=0.7)
    session = Session(n, tmp_path / "out", idle_s=3)
    rows = measured(n, session, [0])
    assert not codes(session.row(rows)) - {"unchecked_state"}


def test_many_calls_of_which_none_is_slow(node, tmp_path):
    """The state is read by up to nine calls, which are timed together."""
    n = node()
    load(n, 0)
    for call in ("ClockInfo", "Temperature", "UtilizationRates", "EnforcedPowerLimit"):
        n.fault(f"nvmlDeviceGet{call}", DELAY, gpu=0, seconds=0.04)
    rows = measured(n, Session(n, tmp_path / "out"), [0])
    assert "slow_calls" not in rows[0]["reasons"]


def test_eight_gpus_that_need_half_a_millisecond_each_keep_the_period(node, tmp_path):
    n = node(8)
    for gpu in range(8):
        load(n, gpu)
        n.fault("nvmlDeviceGetFieldValues", DELAY, gpu=gpu, seconds=0.0004)
    session = Session(n, tmp_path / "out")
    measured(n, session, range(8))
    events = (session.out / "events.jsonl").read_text()
    assert "period_doubled" not in events
