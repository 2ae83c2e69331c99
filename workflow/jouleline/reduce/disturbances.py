"""What made a run slower, or its machine busier, than its row says: other processes, fewer CPUs, debug switches."""

from collections.abc import Mapping
from typing import Any

# Codes of the verdict, in `reasons` of the runs table.
FOREIGN_LOAD = "foreign_load"
# The share of the job's CPUs that others may use. On a CPU device they also draw power, which is counted.
_FOREIGN_SHARE = 0.1
_OFF = ("", "0", "off", "false", "no", "none")

# Values that slow a run down or change its arithmetic, in lower case. None: any value except those for "off".
SLOW: dict[str, tuple[str, ...] | None] = {
    "TORCH_DISTRIBUTED_DEBUG": ("info", "detail"),
    "CUDA_LAUNCH_BLOCKING": None,
    "NCCL_DEBUG": ("info", "abort", "trace"),
    **dict.fromkeys(("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE"), None),
    **dict.fromkeys(("NCCL_BLOCKING_WAIT", "TORCH_NCCL_BLOCKING_WAIT", "TORCH_NCCL_DESYNC_DEBUG"), None),
    "PYTORCH_NO_CUDA_MEMORY_CACHING": None,
    "TORCH_CPP_LOG_LEVEL": ("info", "0"),
    "TORCH_LOGS": None,
    **dict.fromkeys(("CUBLAS_LOGINFO_DBG", "CUDNN_LOGINFO_DBG", "CUDNN_LOGLEVEL_DBG"), None),
    **dict.fromkeys(("MKL_VERBOSE", "ONEDNN_VERBOSE", "DNNL_VERBOSE"), None),
    **dict.fromkeys(("MALLOC_CHECK_", "MALLOC_PERTURB_", "PYTHONDEVMODE", "PYTHONTRACEMALLOC"), None),
    "PYTHONMALLOC": ("debug", "malloc_debug", "pymalloc_debug", "malloc"),
    # Older instructions than the processor has, and another arithmetic than the row's precision.
    "ATEN_CPU_CAPABILITY": ("default",),
    **dict.fromkeys(("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"), ("sse41", "avx", "avx2")),
    "MKL_ENABLE_INSTRUCTIONS": ("sse4_2", "avx", "avx2"),
    "MKL_CBWR": ("compatible", "sse2", "ssse3", "sse4_1", "sse4_2", "avx"),
    "NVIDIA_TF32_OVERRIDE": ("0", "1"),
    "CUDA_DISABLE_PERF_BOOST": None,
    **dict.fromkeys(("LD_AUDIT", "LD_DEBUG", "LD_PROFILE"), None),
    **dict.fromkeys(("CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH"), None),
}


def columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """`foreign_cores`, `cpus_lost` and `slow_settings` of a run's record.

    Null where an older record does not have them.
    """
    environment, nodes = record.get("environment") or {}, record.get("nodes") or []
    foreign = [rank.get("foreign_cores") for node in nodes for rank in node.get("ranks") or []]
    lost = [
        node["cpus"] - rank["cpus"]
        for node in nodes
        for rank in node.get("ranks") or []
        if node.get("cpus") is not None and rank.get("cpus") is not None
    ]
    variables = environment.get("variables")
    return {
        "foreign_cores": max((value for value in foreign if value is not None), default=None),
        "cpus_lost": max(lost, default=None),
        "slow_settings": None if variables is None else slow_settings(variables),
    }


def slow_settings(variables: Mapping[str, str]) -> str:
    """NAME=value of the variables that slow a run down or change its arithmetic, separated by blanks."""
    return " ".join(f"{name}={value}" for name, value in sorted(variables.items()) if _slows(name, value))


def _slows(name: str, value: str) -> bool:
    if name not in SLOW:
        return False
    values = SLOW[name]
    return value.lower() not in _OFF if values is None else value.lower() in values


def others_interfered(record: Mapping[str, Any], foreign_cores: float | None) -> bool:
    """Whether other processes used so much of the job's CPUs that the run's time or energy is not its own."""
    environment = record.get("environment") or {}
    cpus = environment.get("cpu_count")
    if foreign_cores is None or not cpus:
        return False
    if (
        environment.get("device_kind") == "cuda"
    ):  # its ranks need one CPU each, and its energy is that of the GPUs
        return cpus - foreign_cores < record["row"]["gpus_per_node"]
    return foreign_cores > _FOREIGN_SHARE * cpus
