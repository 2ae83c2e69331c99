"""Who else uses the job's GPUs. Other kernels change every number, and memory held by others makes a false oom."""

import time
from collections.abc import Collection
from pathlib import Path

import pynvml

from jouleline.errors import UserError
from jouleline.measure.meters.nvml_probe import attempt
from jouleline.measure.node.gpus import job_gpus

# A process that ends frees its memory a little later.
_PATIENCE_S = 5.0
# The server of CUDA's multi-process service (MPS) has a context but computes nothing itself.
_SERVICES = ("nvidia-cuda-mps",)


def foreign_users(own: Collection[int] = ()) -> list[str]:
    """The processes with a context on the job's GPUs, except `own` pids, in words. Empty where NVML does not say.

    A GPU shared in slices (MIG) shows the processes of all slices, so it is left out.
    """
    found = []
    for gpu in job_gpus():
        there = attempt(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, gpu.handle) if not gpu.mig else None
        for pid in (process.pid for process in there or ()):
            name = _name(pid)
            if pid not in own and not name.startswith(_SERVICES):
                found.append(f"process {pid} ({name}) on GPU {gpu.index}")
    return found


def require_unused() -> None:
    """Raise UserError where anybody uses the job's GPUs. Call it before any rank has a context."""
    until = time.monotonic() + _PATIENCE_S
    while users := foreign_users():
        if time.monotonic() > until:
            raise UserError(
                f"the job's GPUs are in use: {', '.join(users)}; wait until that has ended, end it, or leave the GPU "
                "out of CUDA_VISIBLE_DEVICES",
                1,
            )
        time.sleep(0.2)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # the process is in another pid namespace: a container
        return "not visible here"
