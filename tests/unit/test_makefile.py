"""Which build of torch is set up where."""

import os
import re
import subprocess

import pytest
from jouleline.measure.node.torch_build import CUDA_12, CUDA_13
from paths import ROOT

LOCKS = ROOT / "workflow" / "envs"


@pytest.mark.parametrize(
    ("gpus", "before", "asked", "build"),
    [
        (None, None, None, "cpu"),
        ("", None, None, "cuda"),  # a GPU, and nothing that says which
        ("580.65.06, 9.0", None, None, "cuda"),
        ("550.54.14, 9.0", None, None, "cuda126"),
        ("580.65.06, 7.0", None, None, "cuda126"),
        ("580.65.06, 9.0\n580.65.06, 7.0", None, None, "cuda126"),
        ("570.00, 10.0", None, None, "cuda"),  # CUDA 12.6 has no kernels for it
        ("580.65.06, 12.0", None, None, "cuda"),
        ("580.65.06, 9.0", "cuda126", None, "cuda126"),
        (None, "cuda", None, "cuda"),
        (None, None, "cuda126", "cuda126"),
    ],
)
def test_the_build_of_torch_is_the_one_that_computes_on_the_gpus(tmp_path, gpus, before, asked, build):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s\\n' '{gpus}'\n" if gpus else "#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    if before:
        (tmp_path / f".ready-{before}").touch()
    command = ["make", "-s", "torch", f"VENV={tmp_path}"]
    command += [
        f"DEVICES={tool if gpus is not None else tmp_path / 'none'}",
        *([f"TORCH={asked}"] if asked else []),
    ]
    there = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MAKEFLAGS": ""}
    done = subprocess.run(command, cwd=ROOT, env=there, capture_output=True, text=True)
    assert done.stdout.strip() == build, done.stderr


@pytest.mark.parametrize(("build", "major"), [(CUDA_13, "13"), (CUDA_12, "12")])
def test_every_build_has_a_lock_with_hashes_beside_the_others(build, major):
    text = (LOCKS / f"torch-{build}.lock").read_text()
    names = re.findall(r"^([\w-]+)==", text, re.MULTILINE)
    blocks = re.split(r"\n(?=[\w-]+==)", text.strip())
    assert "torch" in names and all("--hash=sha256:" in block for block in blocks)
    assert re.search(rf"^nvidia-nccl-cu{major}==", text, re.MULTILINE)
    base = set(re.findall(r"^([\w-]+)==", (LOCKS / "base.lock").read_text(), re.MULTILINE))
    assert not base & set(names)
