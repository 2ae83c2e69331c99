"""The job's GPUs as the agent sees them through NVML, and as a rank sees its own through CUDA.

The agent forks its ranks, and a process that forks must not start CUDA. So before the fork only NVML is asked.
"""

import os
from collections.abc import Mapping
from typing import Any

import pynvml

from jouleline.errors import UserError
from jouleline.measure.meters.devices import Gpu, choose
from jouleline.measure.meters.nvml_probe import attempt, list_gpus, open_nvml
from jouleline.measure.node import torch_build
from jouleline.measure.raw.markers import report_device

# The compute capability from which tensor cores support a precision. Below it, it is emulated or DeepSpeed refuses it.
LEAST_CAPABILITY = {"bf16": (8, 0), "fp16": (7, 0)}


def job_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this job. Raises UserError where NVML does not answer."""
    open_nvml()
    return [chosen.gpu for chosen in choose("auto", os.environ, list_gpus())]


def take_gpus(row: Mapping[str, Any]) -> None:
    """Restrict this process and its children to the first `gpus_per_node` visible GPUs, in the order of the bus.

    Raises UserError where the node shows fewer, where two are slices of one GPU, or where one cannot compute in the
    row's precision.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    count, visible = row["gpus_per_node"], os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = job_gpus()
    names = [name.strip() for name in visible.split(",")] if visible else [str(gpu.index) for gpu in gpus]
    if len(names) < count:
        raise UserError(
            f"the row asks for {count} GPUs and this node shows {len(names)}; lower gpus_per_node"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[:count])
    for chosen in choose("auto", os.environ, list_gpus()):
        if len(chosen.slices) > 1:
            raise UserError(
                f"the row asks for {count} devices and {', '.join(chosen.slices)} are slices of one GPU, between which "
                "NCCL does not communicate; set gpus_per_node: 1, or give slices of different GPUs"
            )
    least = LEAST_CAPABILITY.get(row["precision"])
    for gpu in job_gpus() if least else ():
        found = gpu.facts.get("compute_capability")
        if found and tuple(int(part) for part in found.split(".")) < least:
            raise UserError(
                f"precision {row['precision']} needs compute capability {least[0]}.{least[1]}, {gpu.name} has {found}; "
                "use fp32, or fp16 from 7.0 on"
            )


def require_cuda_torch() -> None:
    """Raise UserError where the installed torch cannot compute on the job's GPUs. CUDA is not asked."""
    build = torch_build.torch_build()
    if build["cuda"] is None:
        raise UserError(
            f"this node has a GPU and torch {build['version']} cannot use it; run `make setup TORCH=cuda`, "
            "or set protocol.device: cpu"
        )
    found = [(gpu.name, gpu.facts.get("compute_capability")) for gpu in job_gpus()]
    for problem in torch_build.problems(build, driver_version(), driver_cuda(), found):
        raise UserError(problem)


def driver_cuda() -> int | None:
    """The newest CUDA that the driver supports: 12040 means 12.4. None where NVML does not say."""
    return attempt(pynvml.nvmlInit) or attempt(pynvml.nvmlSystemGetCudaDriverVersion)


def temperature_c() -> float | None:
    """The temperature of the hottest of the job's GPUs in °C; None where no GPU says."""
    try:
        handles = [gpu.handle for gpu in job_gpus() if gpu.handle is not None]
    except UserError:
        return None
    found = [attempt(pynvml.nvmlDeviceGetTemperature, one, pynvml.NVML_TEMPERATURE_GPU) for one in handles]
    return max((float(value) for value in found if value is not None), default=None)


def driver_version() -> str | None:
    """The driver's version; None where NVML does not answer."""
    return attempt(pynvml.nvmlInit) or attempt(pynvml.nvmlSystemGetDriverVersion)


def take(index: int) -> Any:
    """Make CUDA device `index` this process's own and return it.

    fp32 means IEEE single precision, whatever the site's defaults (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE) say: it must mean
    the same in rows and calibrations.
    """
    import torch

    torch.cuda.set_device(index)
    torch.set_float32_matmul_precision("highest")
    return torch.device("cuda", index)


def identify(index: int) -> dict[str, Any]:
    """Name and UUID of CUDA device `index` of this rank, and how it computes. The markers get the UUID, so that the
    sidecar can be checked."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    uuid = full_uuid(str(properties.uuid), index)
    report_device(uuid)
    kernels = ("flash", "mem_efficient", "cudnn", "math")
    enabled = [name for name in kernels if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()]
    numerics = {
        "float32_matmul": torch.get_float32_matmul_precision(),
        "tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE"),
        "sdpa_kernels": enabled,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }
    return {
        "device_uuid": uuid,
        "device": properties.name,
        "cuda": torch.version.cuda,
        "numerics": numerics,
    }


def full_uuid(digits: str, index: int) -> str:
    """The UUID as NVML writes it. CUDA's may lack the prefix; then CUDA_VISIBLE_DEVICES tells it."""
    if digits.startswith(("GPU-", "MIG-")):
        return digits
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    mig = index < len(names) and names[index].strip().startswith("MIG-")
    return f"{'MIG' if mig else 'GPU'}-{digits}"
