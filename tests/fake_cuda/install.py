"""The environment with the CUDA build of torch: .venv-cuda in the checkout, made once and kept.

It holds torch alone, of the CUDA lock (750 MB); the fake stands in for CUDA's own libraries, and all other packages
are those of the environment that runs the tests.
"""

import fcntl
import hashlib
import os
import re
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

from paths import ROOT

ENVIRONMENT = ROOT / ".venv-cuda"
LOCK = ROOT / "workflow" / "envs" / "torch-cuda.lock"
LIMIT_S = 600


def cuda_python() -> Path:
    """Python of the environment, which is made where it is not whole. Two sessions take turns.

    Raises OSError or subprocess.SubprocessError where torch cannot be had.
    """
    requirement = _requirement()
    shared = [path for path in site.getsitepackages() if path.endswith("-packages")]
    stamp, want = ENVIRONMENT / "ready", hashlib.sha256("".join([requirement, *shared]).encode()).hexdigest()
    with open(ROOT / ".venv-cuda.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != want:
            _make(requirement, shared)
            stamp.write_text(want)
    return ENVIRONMENT / "bin" / "python"


def torch_libraries() -> Path:
    """torch/lib of the environment."""
    (found,) = ENVIRONMENT.glob("lib/python*/site-packages/torch/lib")
    return found


def _requirement() -> str:
    """torch and its hashes, as the lock has them; exactly that version, not a CPU build of it."""
    found = re.search(r"^torch==(\S+)((?: \\\n\s+--hash=\S+)+)", LOCK.read_text(), re.MULTILINE)
    return f"torch==={found[1]}{found[2]}\n"


def _make(requirement: str, shared: list[str]) -> None:
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    venv.create(ENVIRONMENT, with_pip=False, symlinks=True)
    wanted = ENVIRONMENT / "torch.txt"
    wanted.write_text(requirement)
    pip = [sys.executable, "-m", "pip", "--python", str(ENVIRONMENT / "bin" / "python"), "install", "-q"]
    command = [*pip, "--no-deps", "--no-cache-dir", "--require-hashes", "-r", str(wanted)]
    quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S, env=quiet)
    (packages,) = ENVIRONMENT.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})\n" for path in shared]
    (packages / "shared.pth").write_text("".join(lines))
