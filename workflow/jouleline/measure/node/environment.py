"""Where a run was made: host, processor, operating system, package versions, Slurm, temperatures."""

import os
import platform
import socket
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.measure.node import gpus

# Job, step and place. The other forty SLURM_* variables describe the site, not the run.
SLURM_NAMES = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_JOB_PARTITION",
    "SLURM_NODELIST",
    "SLURM_NNODES",
    "SLURM_NTASKS",
)
# Variables that change the speed of a run and are not in its row: all that these libraries read.
SPEED_PREFIXES = (
    *("CUDA_", "NVIDIA_", "NCCL_", "CUBLAS", "CUDNN", "GLOO_", "TORCH_", "PYTORCH_", "TORCHINDUCTOR_"),
    *("DS_", "DEEPSPEED_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "ATEN_"),
    *("MALLOC_", "GLIBC_TUNABLES", "LD_", "PYTHONMALLOC", "PYTHONDEVMODE", "PYTHONTRACEMALLOC"),
    *("PYTHONPROFILEIMPORTTIME", "PYTHONFAULTHANDLER", "PYTHONASYNCIODEBUG", "TRANSFORMERS_", "UCX_", "FI_"),
)
PACKAGES = ("torch", "transformers", "deepspeed", "peft", "tokenizers", "numpy", "pyarrow")


def speed_variables() -> dict[str, str]:
    """The environment variables that change the speed of a run, with their values."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(SPEED_PREFIXES)}


def describe(device: str, found: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The environment of this node. `found` is what a rank learnt about its device: device, cuda, numerics."""
    found = found or {}
    cpu = cpu_name()
    return {
        "host": socket.gethostname(),
        "os": _operating_system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": cpu,
        "cpu_count": len(os.sched_getaffinity(0)),
        "device": found.get("device") if device == "cuda" else cpu,
        "device_kind": device,
        "driver": gpus.driver_version() if device == "cuda" else None,
        "cuda": found.get("cuda"),
        "numerics": found.get("numerics"),
        "variables": speed_variables(),
        "slurm": {name: os.environ[name] for name in SLURM_NAMES if name in os.environ},
    }


def cpu_name() -> str:
    """Model name of the processor, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def choose_device(wanted: str) -> str:
    """cpu or cuda for auto, cpu, cuda. No driver is asked, because a process that will fork must not start CUDA."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1", "NoDevFiles")
    present = not hidden and any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0"))
    if wanted == "cuda" and not present:
        raise UserError(
            "protocol.device is cuda and this node shows no GPU; use device: auto or ask for a GPU"
        )
    return wanted if wanted != "auto" else "cuda" if present else "cpu"


def take_devices(protocol: Mapping[str, Any], count: int | None) -> str:
    """The protocol's device. Where it is a GPU, restrict this process to the first `count` GPUs (None: to none).

    Raises UserError where the node has fewer.
    """
    device = choose_device(protocol["device"])
    if device == "cuda" and count:
        gpus.take_gpus({"gpus_per_node": count, "precision": "fp32"})
    return device


def temperature_c(device: str) -> float | None:
    """The temperature of the job's hottest device in °C, by NVML or the kernel's thermal zones.

    None without a sensor.
    """
    if device == "cuda":
        return gpus.temperature_c()
    values = []
    for path in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            values.append(int(path.read_text(encoding="utf-8", errors="replace")) / 1000)
        except (OSError, ValueError):
            continue
    return max(values, default=None)


def cool_down(protocol: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Wait until the device is below start_temperature_c, at most cooldown_max_s. Returns what was reached."""
    limit, begin = protocol["start_temperature_c"], time.monotonic()
    now = temperature_c(device)
    while limit is not None and now is not None and now > limit:
        if time.monotonic() - begin >= protocol["cooldown_max_s"]:
            break
        time.sleep(0.5)
        now = temperature_c(device)
    cool = None if limit is None or now is None else now <= limit
    return {"temperature_c": now, "waited_s": round(time.monotonic() - begin, 1), "below_limit": cool}
