"""Which build of torch is set up where."""

import os
import re
import subprocess
import sys

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


PIP = """#!/bin/sh
echo "pip $*" >> {log}; env | grep ^PIP_ >> {log}
case "$*" in *torch-cpu*) {cpu};; esac
"""


@pytest.fixture
def setup(tmp_path):
    """`make setup` with a pip that writes down what it is called with, and does `cpu` for the CPU build of torch."""

    def run(cpu: str = "true", **settings: str) -> tuple[int, str, str]:
        binaries, log = tmp_path / "bin", tmp_path / "log"
        binaries.mkdir()
        (binaries / "pip").write_text(PIP.format(log=log, cpu=cpu))
        (binaries / "pip").chmod(0o755)
        (binaries / "python").write_text(
            f'#!/bin/sh\ncase "$*" in *site*) echo {tmp_path};; *) exec {sys.executable} "$@";; esac\n'
        )
        (binaries / "python").chmod(0o755)
        command = ["make", "-s", "setup", f"VENV={tmp_path}", "TORCH=cpu"]
        there = os.environ | {"MAKEFLAGS": ""} | settings
        done = subprocess.run(
            command, cwd=ROOT, env=there, capture_output=True, text=True, start_new_session=True
        )
        return done.returncode, done.stdout + done.stderr, log.read_text()

    return run


def test_pip_is_told_nothing_of_a_user_but_where_packages_come_from(tmp_path, setup):
    """Neither in variables nor in a pip.conf."""
    conf = tmp_path / "pip.conf"
    conf.write_text(
        "[global]\nindex-url = https://site/simple\ntarget = /x\n[install]\nprefix = /y\nuser = true\n"
    )
    astray = {"PIP_ROOT": "/z", "PIP_REQUIRE_HASHES": "1", "PIP_NO_BINARY": ":all:", "PIP_DRY_RUN": "1"}
    code, said, log = setup(PIP_CONFIG_FILE=str(conf), PIP_CERT="/c.pem", **astray)
    assert code == 0, said
    calls = log.split("pip install")[1:]
    told = {"PIP_CONFIG_FILE=/dev/null", "PIP_INDEX_URL=https://site/simple", "PIP_CERT=/c.pem"}
    kept = ("PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL", "PIP_DISABLE_PIP_VERSION_CHECK")
    assert len(calls) == 3
    for call in calls:
        settings = set(call.splitlines()[1:])
        assert told <= settings and all(one.startswith(kept) for one in settings - told), call


@pytest.mark.parametrize(
    ("cpu", "other"),
    [
        ("echo 'ERROR: No matching distribution found for torch' >&2; exit 1", True),
        # Where a constraint is given too.
        ("echo 'ERROR: ResolutionImpossible: for help visit ...' >&2; exit 1", True),
        ("echo 'ERROR: Operation cancelled by user' >&2; exit 130", False),
        ("echo 'ERROR: No space left on device' >&2; exit 1", False),
    ],
)
def test_another_build_is_taken_only_where_there_is_none(setup, cpu, other):
    code, said, log = setup(cpu)
    assert ("torch-cuda.lock" in log, code == 0, "ERROR" in said) == (other, other, not other)


def test_ctrl_c_stops_the_set_up(tmp_path, setup):
    """Everything in the foreground gets it: pip, and make."""
    code, _, log = setup("kill -INT 0; sleep 5")
    assert code != 0 and "torch-cuda" not in log and not (tmp_path / ".ready-cpu").exists()
