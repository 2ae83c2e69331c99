"""The fake library itself: its counter and sensors follow from the true energy, to the millijoule."""

import json
import math
import subprocess
import sys

import pytest
from fake_nvml.driver import FakeNode, constant, ramp, sine, square

READ = """
import json, time, pynvml
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(k) for k in range(4)]
seen = []
for _ in range(60):
    for gpu, handle in enumerate(handles):
        before = time.monotonic_ns()
        energy, instant, average = pynvml.nvmlDeviceGetFieldValues(handle, [83, 186, 185])
        after = time.monotonic_ns()
        seen.append([gpu, before, after, energy.value.ullVal, instant.value.uiVal, average.value.uiVal])
    time.sleep(0.013)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def readings(libraries, tmp_path_factory):
    node = FakeNode(tmp_path_factory.mktemp("fake"), libraries, 4)
    for gpu, wave in enumerate(
        (constant(0, 250), square(0, 100, 500, 0.3, 0.3, 0.1), sine(0, 100, 500, 0.7), ramp(0, 100, 500, 2.5))
    ):
        node.gpus[gpu].waves(wave)
        node.gpus[gpu].sensor_noise_w = 0.0
    done = subprocess.run(
        [sys.executable, "-c", READ], env=node.environment(), capture_output=True, text=True, check=True
    )
    return node, json.loads(done.stdout)


def last_update(t: float, period: float, phase: float) -> float:
    return math.floor((t - phase) / period) * period + phase


def possible(node, reading, period: float, phase: float, value) -> list[float]:
    """Values at the last update as of the begin and the end of the call."""
    return [value(last_update((t - node.epoch_ns) * 1e-9, period, phase)) for t in reading[1:3]]


def test_the_counter_is_the_true_energy_at_the_last_tick(readings):
    node, seen = readings
    for reading in seen:
        gpu = node.gpus[reading[0]]
        values = possible(
            node, reading, gpu.tick_s, gpu.tick_phase_s, lambda t, g=reading[0]: node.true_energy_j(g, 0, t)
        )
        assert min(abs(gpu.counter_start_j + v - reading[3] * 1e-3) for v in values) < 2e-3


def test_the_sensors_show_25_ms_and_1_s_of_the_true_power(readings):
    node, seen = readings
    for reading in seen:
        gpu = node.gpus[reading[0]]
        for milliwatts, window in ((reading[4], 0.025), (reading[5], 1.0)):
            values = possible(
                node, reading, gpu.refresh_s, gpu.sensor_phase_s,
                lambda t, g=reading[0], w=window: node.true_energy_j(g, t - w, t) / w,
            )  # fmt: skip
            assert min(abs(v - milliwatts * 1e-3) for v in values) < 0.01


def test_closed_forms_agree_with_a_fine_sum(readings):
    node, _ = readings
    for gpu in range(4):
        fine = sum(node.true_energy_j(gpu, 0.1 * k, 0.1 * (k + 1)) for k in range(37))
        assert fine == pytest.approx(node.true_energy_j(gpu, 0.0, 3.7), rel=1e-9)
    # A period's mean power, by hand: 100 + 400 x 0.3 and the middle of the sine.
    assert node.true_energy_j(1, 1.0, 1.3) == pytest.approx(220 * 0.3)
    assert node.true_energy_j(2, 0.5, 1.2) == pytest.approx(300 * 0.7)
    assert node.true_energy_j(3, 0.0, 2.5) == pytest.approx(300 * 2.5)


OPEN = """
import json, sys, threading, time, pynvml
pynvml.nvmlInit()
took = {}
begin = time.monotonic()
def first(index):
    try:
        pynvml.nvmlDeviceGetHandleByIndex(index)
        took[index] = time.monotonic() - begin
    except pynvml.NVMLError as error:
        took[index] = -error.value
threads = [threading.Thread(target=first, args=(index,)) for index in range(3)]
for one in threads: one.start()
for one in threads: one.join()
print(json.dumps([took[0], took[1], took[2], pynvml.nvmlSystemGetCudaDriverVersion()]), flush=True)
sys.stdin.read()
"""


def test_gpus_start_one_after_the_other_and_stay_started(libraries, tmp_path):
    """Without persistence mode; a denied one does not answer; the driver knows a version of CUDA."""
    node = FakeNode(tmp_path, libraries, 3)
    node.state.cuda_version = 12040
    node.gpus[0].init_s = node.gpus[1].init_s = 0.4
    node.gpus[2].denied = 1

    def opened():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", OPEN], env=node.environment(), text=True, **pipes)
        return process, json.loads(process.stdout.readline())

    holder, seen = opened()
    assert min(seen[:2]) >= 0.4 and max(seen[:2]) >= 0.8 and seen[2:] == [-4, 12040]
    second, seen = opened()
    assert max(seen[:2]) < 0.4
    for process in (holder, second):
        process.communicate()
    third, seen = opened()
    third.communicate()
    assert max(seen[:2]) >= 0.8
