"""Opening NVML and asking each GPU what it is and can do, with a limit on how long an answer may take."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pynvml

from jouleline.errors import UserError
from jouleline.measure.meters.base import NO_METER
from jouleline.measure.meters.devices import Gpu

INIT_LIMIT_S = 10.0
# A GPU without persistence mode that nobody uses is initialised at its first handle, which takes 1 to 3 s.
PROBE_LIMIT_S = 3.5


def within(limit_s: float, call: Callable[[], Any]) -> tuple[bool, Any]:
    """(True, result) or (False, None) when `call` takes longer; its thread is then left behind. Re-raises."""
    box: list[tuple[str, Any]] = []

    def body() -> None:
        try:
            box.append(("result", call()))
        except Exception as error:
            box.append(("error", error))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not box:
        return False, None
    kind, value = box[0]
    if kind == "error":
        raise value
    return True, value


def open_nvml() -> None:
    """nvmlInit; raises UserError with exit code 3 that says what is missing."""
    remedy = "use --meter estimate for a declared estimate, or run where `nvidia-smi` works"
    try:
        answered, _ = within(INIT_LIMIT_S, pynvml.nvmlInit)
    except pynvml.NVMLError_LibraryNotFound as error:
        raise UserError(f"no NVML: the library libnvidia-ml.so.1 is not found; {remedy}", NO_METER) from error
    except pynvml.NVMLError as error:
        raise UserError(f"no NVML: nvmlInit says '{error}'; {remedy}", NO_METER) from error
    if not answered:
        raise UserError(f"no NVML: nvmlInit did not answer in {INIT_LIMIT_S:g} s; {remedy}", NO_METER)


def attempt(function: Callable, *arguments: Any) -> Any:
    """The result of an NVML call, or None when the device does not have it or may not say."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def list_gpus() -> list[Gpu]:
    """Every GPU that NVML shows. One that does not answer has no handle and the UUID `unanswered:<index>`."""
    try:
        answered, count = within(INIT_LIMIT_S, pynvml.nvmlDeviceGetCount)
    except pynvml.NVMLError as error:
        raise UserError(f"no NVML: nvmlDeviceGetCount says '{error}'; reload the driver", NO_METER) from error
    if not answered:
        raise UserError(f"no NVML: nvmlDeviceGetCount did not answer in {INIT_LIMIT_S:g} s", NO_METER)
    found: dict[int, Gpu] = {}

    def probe(index: int) -> None:
        gpu = _probe(index)
        if gpu is not None:
            found[index] = gpu

    threads = [threading.Thread(target=probe, args=(index,), daemon=True) for index in range(count or 0)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_LIMIT_S
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return [found.get(index) or Gpu(index, f"unanswered:{index}", "unknown", None) for index in range(count)]


def _probe(index: int) -> Gpu | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
    except pynvml.NVMLError:
        return None
    pci = attempt(pynvml.nvmlDeviceGetPciInfo, handle)
    limit_mw = attempt(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    capability = attempt(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    ecc = attempt(pynvml.nvmlDeviceGetEccMode, handle)
    persistence = attempt(pynvml.nvmlDeviceGetPersistenceMode, handle)
    facts = {
        "power_limit_w": None if limit_mw is None else limit_mw / 1e3,
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        "ecc": None if ecc is None else bool(ecc[0]),
        "persistence": None if persistence is None else bool(persistence),
    }
    name = attempt(pynvml.nvmlDeviceGetName, handle) or "unknown"
    return Gpu(index, uuid, name, pci.busId if pci else None, _slices(handle), handle, facts)


def _slices(handle: Any) -> list[str]:
    """UUIDs of the MIG devices of a GPU; empty without MIG."""
    mode = attempt(pynvml.nvmlDeviceGetMigMode, handle)
    if not mode or not mode[0]:
        return []
    uuids = []
    for number in range(attempt(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        slice_handle = attempt(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if slice_handle is not None:
            uuids.append(attempt(pynvml.nvmlDeviceGetUUID, slice_handle))
    return [uuid for uuid in uuids if uuid]
