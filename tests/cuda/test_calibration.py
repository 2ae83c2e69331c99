"""Calibration and idle power with `device: cuda`, on fake GPUs."""

import json
import subprocess
from collections import Counter

from matrix import PROTOCOL, start

GIVEN = "--protocol", json.dumps(PROTOCOL)


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def one_context_each(cuda, ranks: int) -> None:
    contexts = cuda.events("context")
    assert sorted(event.number for event in contexts) == list(range(ranks)), contexts
    assert set(Counter(event.pid for event in contexts).values()) == {1}, contexts
    assert not cuda.events("used after a fork", "copy between devices")


def test_a_node_is_calibrated(gpus, tmp_path):
    cuda, out = gpus(2), tmp_path / "device.json"
    finish(start(cuda, "calibrate_node", *GIVEN, "--out", str(out), "--budget-s", "4"))
    found = json.loads(out.read_text())
    assert (found["device"], found["software"]["devices"], found["meter"]) == ("NVIDIA Fake H100", 2, "nvml")
    by_name = {(entry["quantity"], entry["precision"]): entry["value"] for entry in found["quantities"]}
    for precision in ("fp32", "bf16", "fp16"):
        assert by_name["peak_flops", precision] > 0
    assert by_name["link_bandwidth_all_reduce", None] > 0 and by_name["launch_overhead_s", None] > 0
    one_context_each(cuda, 2)


def test_links_between_nodes_are_calibrated(gpus, tmp_path):
    cuda, out = gpus(2), tmp_path / "links" / "N2x1.json"
    options = ["--of-nodes", "2", "--devices", "1", "--out", str(out), "--budget-s", "5", "--nodes", "2"]
    agents = [
        start(
            *(cuda, "calibrate_links", *GIVEN, *options, "--node-rank", str(node), "--address", "127.0.0.1"),
            CUDA_VISIBLE_DEVICES=str(node),
        )
        for node in (1, 0)
    ]
    for agent in agents:
        finish(agent)
    found = json.loads(out.read_text())
    assert found["device"] == "NVIDIA Fake H100" and len(found["quantities"]) == 6
    assert all(entry["value"] > 0 and "nccl" in entry["method"] for entry in found["quantities"])
    one_context_each(cuda, 2)


def test_idle_power_needs_no_context(gpus, tmp_path):
    cuda, out = gpus(3), tmp_path / "idle.json"
    finish(start(cuda, "measure_idle", *GIVEN, "--devices", "2", "--out", str(out)))
    devices = json.loads(out.read_text())["devices"]
    assert len(devices) == 2 and not cuda.events()
