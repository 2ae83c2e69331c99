"""Whether this build of torch can compute on this node's GPUs, found out before CUDA is started.

A build has kernels for some compute capabilities, and a CUDA runtime that needs a driver of its major version. Sources:
CUDA C++ programming guide, "Binary compatibility" and "PTX compatibility"; CUDA compatibility guide, "Minor version
compatibility".
"""

import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# The oldest driver for each CUDA major version, by NVIDIA's release notes.
LEAST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
# The builds that have a lock (`make setup TORCH=...`), each with its CUDA version.
CUDA_13, CUDA_12 = "cuda", "cuda126"
_ARCH_LIST = re.compile(rb"\0((?:sm|compute)_\d+[a-z]?(?: (?:sm|compute)_\d+[a-z]?)*)\0")


def torch_build() -> dict[str, Any]:
    """{"version", "cuda": CUDA version or None, "arch": names such as sm_90} of the installed torch."""
    import torch

    # Any answer of torch itself would start CUDA, or forbid it in the forks of this process. So the list is read from
    # the library where torch reads it. Empty where the library is not found.
    library = Path(torch.__file__).parent / "lib" / "libtorch_python.so"
    arch = _arch_list(library) if torch.version.cuda else []
    return {"version": torch.__version__, "cuda": torch.version.cuda, "arch": arch}


def _arch_list(library: Path) -> list[str]:
    try:
        with open(library, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _ARCH_LIST.search(content)
            return found[1].decode().split() if found else []
    except OSError:
        return []


def computes_on(arch: Sequence[str], capability: str) -> bool:
    """Whether kernels for `arch` run at a compute capability such as "9.0".

    Machine code (sm_) runs from its minor version on, within its major version. An architecture with a letter runs
    nowhere else. PTX (compute_) runs from its version on.
    """
    major, minor = (int(part) for part in capability.split("."))
    for name in arch:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", name)
        if not found:
            continue
        its = (int(found[2]), int(found[3]))
        same = its[0] == major and (its[1] == minor or (its[1] < minor and found[4] != "a"))
        if same if found[1] == "sm" else its <= (major, minor):
            return True
    return False


def driver_problem(build: Mapping[str, Any], driver: str | None, driver_cuda: int | None) -> str | None:
    """What is wrong between the driver and torch's CUDA. None: nothing, or NVML did not say.

    `driver_cuda` is NVML's number, 12040 for 12.4.
    """
    if driver_cuda is None or build["cuda"] is None:
        return None
    wanted, has = int(build["cuda"].split(".")[0]), driver_cuda // 1000
    if has >= wanted:
        return None
    text = f"torch {build['version']} needs a driver for CUDA {wanted} and driver {driver} is for CUDA {has}"
    least = LEAST_DRIVER.get(wanted)
    update = f"update the driver to {least} or later" if least else "update the driver"
    if wanted == 13 and has == 12:
        return f"{text}; run `make setup TORCH={CUDA_12}`, or {update}"
    return f"{text}; {update}"


def kernel_problem(build: Mapping[str, Any], name: str, capability: str | None) -> str | None:
    """Why a GPU of this name and compute capability cannot run torch's kernels. None: it can, or this is unknown."""
    if not capability or not build["arch"] or computes_on(build["arch"], capability):
        return None
    text = (
        f"torch {build['version']} has no kernels for {name} (compute capability {capability}), it has "
        f"{', '.join(build['arch'])}"
    )
    old = [int(capability.split(".")[0]) < 8, build["cuda"].startswith("13")]
    other = CUDA_12 if all(old) else CUDA_13 if not any(old) else None
    return f"{text}; run `make setup TORCH={other}`" if other else f"{text}; take another build of torch"


def problems(
    build: Mapping[str, Any],
    driver: str | None,
    driver_cuda: int | None,
    gpus: Sequence[tuple[str, str | None]],
) -> Iterator[str]:
    """Everything that prevents this build from computing here. `gpus` are (name, compute capability)."""
    found = [driver_problem(build, driver, driver_cuda)]
    found += [kernel_problem(build, name, capability) for name, capability in dict.fromkeys(gpus)]
    yield from filter(None, found)
