"""`jouleline doctor` on nodes of fake GPUs and on one without: what NVML says becomes the right finding."""

import json
import subprocess
import sys

import pytest
from paths import ROOT

COMMAND = [sys.executable, "-m", "jouleline.commands.main", "doctor"]


@pytest.fixture
def look(node, tmp_path):
    """Examines a node that `spoil` has changed; torch and the device's file are the tests' own."""
    (tmp_path / "site").mkdir()
    # NVML is a fake without a driver's file.
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "from jouleline.doctor import facts\n"
        "facts.choose_device = lambda wanted: 'cuda'\n"
        "facts.torch_build = lambda: {'version': '2.13.0+cu130', 'cuda': '13.0', 'arch': ['sm_75', 'sm_80', 'sm_90']}\n"
    )

    def run(spoil, *options, gpus=2, **environment):
        there = node(gpus)
        spoil(there)
        paths = f"{tmp_path / 'site'}:{ROOT / 'workflow'}"
        command = [*COMMAND, "--json", str(tmp_path / "kept"), "--devices", "2", *options]
        (tmp_path / "kept").mkdir()
        process = there.environment(PYTHONPATH=paths, **environment)
        done = subprocess.run(command, env=process, capture_output=True, text=True)
        (kept,) = (tmp_path / "kept").glob("*.json")
        findings = json.loads(kept.read_text())["findings"]
        return done.returncode, {one["check"]: one for one in findings}, done.stdout + done.stderr

    return run


def one(name, value):
    """Changes one attribute of the first GPU."""
    return lambda node: setattr(node.gpus[0], name, value)


def of_node(name, value):
    return lambda node: setattr(node.state, name, value)


def busy(node):
    node.gpus[0].n_pids, node.gpus[0].pids[0] = 1, 1


def old(node):
    for gpu in node.gpus[:2]:
        gpu.capability_major = 7


def still(node):
    for gpu in node.gpus[:2]:
        gpu.tick_s = 1e6


# How NVML is spoilt, the check, its state, and what is found. A new state joins by one line.
STATES = [
    (of_node("driver_missing", 1), "device", "FAILED", "Driver Not Loaded"),
    (one("denied", 1), "device", "FAILED", "1 NVIDIA Fake H100; NVML counts 2"),
    (of_node("cuda_version", 12040), "driver", "FAILED", "for CUDA 12.4"),
    (old, "kernels", "FAILED", "7.0"),
    (one("persistence", 0), "persistence", "note", "off on GPU 0"),
    (one("compute_mode", 2), "compute mode", "FAILED", "Prohibited"),
    (one("compute_mode", 3), "compute mode", "ok", "Exclusive_Process"),
    (one("mig_slices", 2), "MIG", "note", "GPU 0: 2 slices"),
    (busy, "other processes", "FAILED", "GPU 0: 1"),
    (one("no_counter", 1), "energy counter", "note", "none on GPU 0"),
    (still, "energy counter", "FAILED", "does not move"),
    (
        lambda node: node.fault("nvmlDeviceGetFieldValues", kind=1, seconds=0.02),
        "NVML calls",
        "note",
        "us",
    ),
    (lambda node: node.fault("*", gpu=0, code=15), "answers", "FAILED", "GPU 0 does not answer"),
    (lambda node: None, "energy counter", "ok", "moves every"),
]


@pytest.mark.parametrize(
    ("spoil", "check", "state", "found"), STATES, ids=lambda value: "" if callable(value) else value[:24]
)
def test_what_nvml_says_becomes_a_finding(look, spoil, check, state, found):
    code, findings, said = look(spoil)
    assert (findings[check]["state"], found in findings[check]["found"]) == (state, True), said
    assert code == int(any(one["state"] == "FAILED" for one in findings.values()))
    assert "Traceback" not in said and findings[check]["check"] in said


def test_a_node_without_gpus_is_fit_for_a_campaign_on_cpus(tmp_path):
    done = subprocess.run([*COMMAND, "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0 and "no GPU" in done.stdout, done.stderr


def test_cuda_on_a_node_without_gpus_fails_with_its_remedy():
    done = subprocess.run([*COMMAND, "--device", "cuda"], capture_output=True, text=True)
    assert done.returncode == 1 and "FAILED  device" in done.stdout, done.stdout


def test_names_of_other_nodes_must_lead_to_them():
    options = ["--device", "cpu", "--nodes", "2", "--peers", "127.0.0.1,no-such-host.invalid"]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED  peers")]
    assert done.returncode == 1 and len(lines) == 2, done.stdout
    assert "127.0.0.1 by lo" in lines[0] and "no-such-host.invalid has no address here" in lines[1]


@pytest.mark.parametrize("option", ["--devices", "--nodes"])
def test_a_bad_number_is_one_line(option):
    done = subprocess.run([*COMMAND, option, "0"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"error: {option} is 0; give at least 1\n"


def test_what_was_kept_is_shown_once(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    first = subprocess.run([*COMMAND, "--device", "cpu", "--json", str(kept)], capture_output=True, text=True)
    shown = subprocess.run([*COMMAND, "--show", str(kept)], capture_output=True, text=True)
    assert shown.returncode == first.returncode and shown.stdout.strip() == first.stdout.strip()
    assert not kept.exists()
