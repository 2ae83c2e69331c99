"""The doctor's judgement: every bad state of a node is found, with its remedy, and a good one passes."""

import pytest
from jouleline.doctor import table
from jouleline.doctor.checks import FAILED, NONE, NOTE, Wish, findings

GPU = {
    **{
        "index": 0,
        "uuid": "GPU-0",
        "name": "NVIDIA H100",
        "slices": 0,
        "capability": "9.0",
        "persistence": True,
    },
    **{
        "compute_mode": 0,
        "processes": [],
        "latency_s": 2e-5,
        "counter": True,
        "tick_s": 0.1,
        "silent": False,
    },
}
TORCH = {"version": "2.13.0+cu130", "cuda": "13.0", "arch": ["sm_75", "sm_80", "sm_90"]}
GOOD = {
    **{"host": "n1", "device": "cuda", "cpu": "EPYC", "gpus": [GPU, GPU | {"index": 1}], "nvml_error": None},
    **{"nvml_count": 2, "look_s": 0.1, "torch": TORCH, "driver": "580.65.06", "driver_cuda": 13000},
    **{"shm_byte": 60 << 30, "scratch": "/tmp", "scratch_byte": 60 << 30, "peers": {"n2": "ib0"}},
    **{"clock_synchronised": True, "network": True},
}
WISH = Wish(2, 2, ("fp32", "bf16"), hub=True)


def gpu(**facts):
    """The good node with this said of its first GPU."""
    return {"gpus": [GPU | facts, GPU | {"index": 1}]}


# What is bad, the check that finds it, how bad it is, and a part of the remedy. A new state joins by one line.
BAD = [
    ({"nvml_error": "no NVML", "gpus": []}, "device", FAILED, "load the driver"),
    ({"gpus": [GPU], "nvml_count": 2}, "device", FAILED, "--gres=gpu:2"),
    (gpu(silent=True), "answers", FAILED, "reset"),
    (
        {"torch": TORCH | {"version": "2.13.0+cpu", "cuda": None, "arch": []}},
        "torch",
        FAILED,
        "make setup TORCH=cuda",
    ),
    ({"driver": "550.54.14", "driver_cuda": 12040}, "driver", FAILED, "TORCH=cuda126"),
    ({"driver": "470.82.01", "driver_cuda": 11040}, "driver", FAILED, "580.65.06"),
    (gpu(name="Tesla V100", capability="7.0"), "kernels", FAILED, "TORCH=cuda126"),
    (gpu(name="RTX 2080", capability="7.5"), "precision", FAILED, "fp16"),
    (gpu(persistence=False), "persistence", NOTE, "nvidia-smi -pm 1"),
    (gpu(compute_mode=2), "compute mode", FAILED, "nvidia-smi -c"),
    (gpu(slices=2), "MIG", NOTE, "whole GPU"),
    ({"gpus": [GPU | {"slices": 2}], "nvml_count": 1}, "MIG", FAILED, "two slices"),
    (gpu(processes=[4711]), "other processes", FAILED, "--exclusive"),
    (gpu(counter=False), "energy counter", NOTE, "sampled power"),
    ({"gpus": [GPU | {"tick_s": None}] * 2}, "energy counter", FAILED, "reset"),
    (gpu(latency_s=0.02), "NVML calls", NOTE, "DCGM"),
    ({"shm_byte": 64 << 20}, "/dev/shm", FAILED, "--shm-size"),
    ({"shm_byte": None}, "/dev/shm", FAILED, "--shm-size"),
    ({"scratch_byte": 1 << 20}, "scratch", FAILED, "SLURM_TMPDIR"),
    ({"peers": {}}, "peers", NOTE, "--peers"),
    ({"peers": {"n2": None}}, "peers", FAILED, "/etc/hosts"),
    ({"peers": {"n2": "lo"}}, "peers", FAILED, "loopback"),
    ({"clock_synchronised": False}, "clock", FAILED, "chronyd"),
    ({"network": False}, "network", NOTE, "HF_HOME"),
]


def test_a_good_node_passes():
    found = findings(GOOD, WISH)
    assert not [one for one in found if one.state in (FAILED, NOTE)]
    assert not table.failed(found) and "nothing that is needed is missing" in table.text(found, "n1")


@pytest.mark.parametrize(("state", "check", "how", "remedy"), BAD, ids=lambda value: str(value)[:40])
def test_every_bad_state_is_found_with_its_remedy(state, check, how, remedy):
    found = findings(GOOD | state, WISH)
    (one,) = [one for one in found if one.check == check and one.state == how]
    assert remedy in one.remedy and one.found
    # Nothing else is blamed, but for what follows: fewer GPUs, or old ones.
    others = {one.check for one in found if one.state == FAILED} - {check}
    assert others <= {"kernels": {"precision"}, "MIG": {"device"}}.get(check, set())
    text = table.text(found, "n1")
    assert all(len(line) <= 170 for line in text.splitlines())
    assert ("checks failed" in text) == table.failed(found) == (how == FAILED)


def test_a_node_without_gpus_is_fit_for_a_campaign_on_cpus():
    facts = GOOD | {"device": "cpu", "gpus": [], "torch": None, "driver": None, "driver_cuda": None}
    found = findings(facts, Wish())
    assert not table.failed(found)
    assert {one.check for one in found if one.found == "no GPU"} >= {"driver", "kernels", "energy counter"}
    assert all(one.state == NONE for one in found if one.found == "no GPU")
