"""The job's GPUs through the real pynvml on a fake library: which are taken, what they can, how warm they are."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.cuda.nccl
from fake_nvml.driver import GPU_LOST, FakeNode
from jouleline.errors import UserError
from jouleline.measure.node import agent, gpu_users
from jouleline.measure.node.gpus import full_uuid, identify
from jouleline.measure.node.outcome import Outcome


@pytest.fixture
def node(tmp_path, libraries):
    return FakeNode(tmp_path / "node", libraries, 3)


def run(node: FakeNode, code: str, **environment: str) -> subprocess.CompletedProcess:
    """A process of its own: the loader must find the fake library when it starts."""
    code = f"import json, os, sys\nfrom jouleline.measure.node import environment, gpus\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], env=node.environment(**environment), capture_output=True, text=True
    )


def take(node: FakeNode, count: int, precision: str = "fp32", **environment: str):
    row = {"gpus_per_node": count, "precision": precision}
    shown = "os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER']"
    return run(node, f"gpus.take_gpus({row!r})\nprint({shown})", **environment)


def test_the_first_visible_gpus_are_taken_in_the_order_of_the_bus(node):
    assert take(node, 2).stdout.split() == ["0,1", "PCI_BUS_ID"]
    assert take(node, 1, CUDA_VISIBLE_DEVICES="2,0").stdout.split()[0] == "2"
    named = f"{node.uuid(1)}, {node.uuid(2)}"
    assert take(node, 2, CUDA_VISIBLE_DEVICES=named).stdout.split()[0] == named.replace(" ", "")


def test_too_few_gpus_are_refused(node):
    done = take(node, 2, CUDA_VISIBLE_DEVICES="1")
    assert "the row asks for 2 GPUs and this node shows 1; lower gpus_per_node" in done.stderr


@pytest.mark.parametrize(
    ("precision", "capability", "said"),
    [
        ("bf16", (7, 5), "bf16 needs compute capability 8.0"),
        ("fp16", (6, 1), "fp16 needs compute capability 7.0"),
    ],
)
def test_a_precision_that_the_gpu_only_emulates_is_refused(node, precision, capability, said):
    node.gpus[1].capability_major, node.gpus[1].capability_minor = capability
    assert said in take(node, 2, precision).stderr
    assert take(node, 1, precision).returncode == 0  # the other GPUs can
    assert take(node, 2, "fp32").returncode == 0


def test_a_node_without_nvml_says_what_is_missing(node):
    done = take(node, 1, LD_LIBRARY_PATH="")
    assert done.returncode != 0 and "no NVML" in done.stderr


def cool_down(node: FakeNode, protocol: dict, **environment: str) -> dict:
    done = run(node, f"print(json.dumps(environment.cool_down({protocol!r}, 'cuda')))", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def falling(node: FakeNode, gpu: int, now_c: float, per_s: float) -> None:
    """Let a GPU be at `now_c` now and cool by `per_s`."""
    node.gpus[gpu].temperature_c = now_c + per_s * node.now_s()
    node.gpus[gpu].temperature_rate_c_s = -per_s


def test_cool_down_waits_until_the_hottest_gpu_of_the_job_is_below_the_limit(node):
    falling(node, 1, 70.0, 10.0)
    begin = time.monotonic()
    found = cool_down(node, {"start_temperature_c": 50.0, "cooldown_max_s": 30.0})
    assert found["below_limit"] is True and 45.0 <= found["temperature_c"] <= 50.0
    assert 1.0 < found["waited_s"] < time.monotonic() - begin < 28.0


def test_cool_down_gives_up_after_its_time_and_says_so(node):
    node.gpus[0].temperature_c = 80.0
    found = cool_down(node, {"start_temperature_c": 50.0, "cooldown_max_s": 1.0})
    assert found["below_limit"] is False and found["temperature_c"] == 80.0
    assert 1.0 <= found["waited_s"] < 30.0


def test_gpus_of_other_jobs_do_not_hold_a_run_up(node):
    node.gpus[0].temperature_c, node.gpus[2].temperature_c = 90.0, 40.0
    protocol = {"start_temperature_c": 50.0, "cooldown_max_s": 20.0}
    found = cool_down(node, protocol, CUDA_VISIBLE_DEVICES="2")
    assert found.pop("waited_s") < 20.0 and found == {"temperature_c": 40.0, "below_limit": True}


def test_a_temperature_that_cannot_be_read_is_null(node):
    for function in ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"):
        node.fault(function, code=GPU_LOST)
    found = cool_down(node, {"start_temperature_c": 50.0, "cooldown_max_s": 20.0})
    assert found.pop("waited_s") < 20.0 and found == {"temperature_c": None, "below_limit": None}


def test_no_library_wakes_cuda_before_the_ranks_are_forked(node):
    """A process in which CUDA was asked anything cannot fork ranks that use it."""
    code = """
import torch
asked = []
for name in ("is_available", "device_count", "current_device", "get_device_capability", "_lazy_init"):
    setattr(torch.cuda, name, lambda *_, name=name, **__: asked.append(name) or 0)
gpus.take_gpus({"gpus_per_node": 1, "precision": "bf16"})
import jouleline.measure.train.rank
print(environment.describe("cuda")["driver"], gpus.temperature_c(), asked)
"""
    done = run(node, code, DS_ACCELERATOR="cuda", HF_HUB_OFFLINE="1")
    assert done.stdout.strip().endswith("45.0 []"), done.stdout + done.stderr


def unused(node: FakeNode, own: str = "()") -> subprocess.CompletedProcess:
    code = "from jouleline.measure.node import gpu_users\ngpu_users._PATIENCE_S = 0.3\n"
    return run(node, f"{code}print(gpu_users.foreign_users({own}))\ngpu_users.require_unused()")


def test_a_gpu_that_others_use_is_refused_and_they_are_named(node):
    assert unused(node).returncode == 0
    node.gpus[1].n_pids = 1
    for pid, name in (
        (os.getpid(), Path("/proc/self/comm").read_text().strip()),
        (4_000_000, "not visible here"),
    ):
        node.gpus[1].pids[0] = pid
        done = unused(node)
        assert f"the job's GPUs are in use: process {pid} ({name}) on GPU 1; wait until" in done.stderr
    assert unused(node, "(4_000_000,)").stdout == "[]\n"
    code = "from jouleline.measure.node.gpu_users import require_unused; require_unused()"
    assert run(node, code, CUDA_VISIBLE_DEVICES="0").returncode == 0  # another GPU's processes


def test_memory_that_others_held_makes_no_configuration_too_large():
    oom = Outcome("oom", "out_of_memory", "rank 0: CUDA out of memory")
    assert oom.shared_with([]) == oom
    shared = oom.shared_with(["process 7 (python) on GPU 0"])
    assert (shared.status, shared.reason) == (
        "failed",
        "gpu_shared",
    ) and "process 7 (python)" in shared.detail
    lost = Outcome("failed", "rank_killed")
    assert lost.shared_with(["process 7 (python) on GPU 0"]) == lost


def test_the_agent_looks_for_others_before_its_ranks_compute_and_when_memory_ran_out(monkeypatch):
    own = []
    monkeypatch.setattr(gpu_users, "_PATIENCE_S", 0)
    monkeypatch.setattr(
        gpu_users, "foreign_users", lambda pids=(): own.append([*pids]) or ["process 7 on GPU 0"]
    )
    monkeypatch.setattr(agent, "of_ranks", lambda *_: Outcome("oom", "out_of_memory", "rank 0"))
    there = {"place": SimpleNamespace(node=0, per_node=1), "ranks": SimpleNamespace(pids={0: 5}), "kills": 0}
    of_gpus = SimpleNamespace(device="cuda", lock=SimpleNamespace(exists=False), **there)
    with pytest.raises(UserError, match="in use: process 7 on GPU 0"):
        agent.NodeAgent.take_device(of_gpus)
    assert agent.NodeAgent.of_ranks(of_gpus).reason == "gpu_shared"
    assert own == [[], [5]]
    of_cpus = SimpleNamespace(**vars(of_gpus) | {"device": "cpu"})
    agent.NodeAgent.take_device(of_cpus)
    assert agent.NodeAgent.of_ranks(of_cpus).status == "oom" and len(own) == 2


def test_two_slices_of_one_gpu_are_refused_beforehand(node):
    node.gpus[0].mig_slices = node.gpus[1].mig_slices = 2
    code = "from jouleline.measure.meters.nvml_probe import *\nopen_nvml()\n"
    code += "print(json.dumps([g.mig for g in list_gpus()]))"
    first, second, _ = json.loads(run(node, code).stdout)
    done = take(node, 2, CUDA_VISIBLE_DEVICES=",".join(first))
    assert (
        f"{first[0]}, {first[1]} are slices of one GPU" in done.stderr and "gpus_per_node: 1" in done.stderr
    )
    assert take(node, 1, CUDA_VISIBLE_DEVICES=",".join(first)).returncode == 0
    assert take(node, 2, CUDA_VISIBLE_DEVICES=f"{first[0]},{second[0]}").returncode == 0


def test_calibration_takes_the_devices_of_the_largest_row(node):
    code = "print(environment.take_devices({'device': 'cuda'}, %s), os.environ.get('CUDA_VISIBLE_DEVICES'))"
    setting = "environment.choose_device = lambda wanted: 'cuda'\n"
    assert run(node, setting + code % 2).stdout.split() == ["cuda", "0,1"]
    assert run(node, setting + code % None).stdout.split() == ["cuda", "None"]
    assert "asks for 4 GPUs and this node shows 3" in run(node, setting + code % 4).stderr


def test_a_torch_without_cuda_is_refused_where_there_is_a_gpu(node):
    done = run(node, "import torch; torch.version.cuda = None; gpus.require_cuda_torch()")
    assert "make setup TORCH=cuda" in done.stderr


def test_a_rank_says_how_its_gpu_computes(monkeypatch, tmp_path):
    properties = SimpleNamespace(uuid="0000001a-1111-2222-3333-000000000000", name="NVIDIA Fake H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 29, 7))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("JOULELINE_MARKERS", str(tmp_path))
    found = identify(0)
    assert found["device_uuid"] == "GPU-0000001a-1111-2222-3333-000000000000"
    assert (found["device"], found["cuda"]) == ("NVIDIA Fake H100", "13.0")
    assert found["numerics"]["nccl"] == "2.29.7" and found["numerics"]["float32_matmul"] == "highest"
    assert "math" in found["numerics"]["sdpa_kernels"]
    assert next(tmp_path.glob("rank-*.bin")).stat().st_size == 64  # the sidecar is told


def test_cuda_s_uuid_is_written_as_nvml_writes_it(monkeypatch):
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "0,MIG-aaaa")
    assert full_uuid("12ab-34", 0) == "GPU-12ab-34"
    assert full_uuid("12ab-34", 1) == "MIG-12ab-34"
    assert full_uuid("GPU-12ab-34", 1) == "GPU-12ab-34"
