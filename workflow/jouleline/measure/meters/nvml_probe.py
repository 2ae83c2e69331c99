"""Open NVML and ask each GPU what it is and what it can do. Every answer has a time limit."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pynvml

from jouleline.errors import UserError
from jouleline.measure.meters.base import NO_METER
from jouleline.measure.meters.devices import Gpu

INIT_LIMIT_S = 10.0
# How long a GPU that is started may take to answer.
PROBE_LIMIT_S = 3.5
# Without persistence mode the driver starts an unused GPU at its first handle. This takes 1 to 3 s each, one after the
# other. These are the limits for all GPUs together, and for the next one after each.
START_LIMIT_S, NEXT_LIMIT_S = 60.0, 10.0
_POLL_S = 0.01


def within(limit_s: float, call: Callable[[], Any]) -> tuple[bool, Any]:
    """(True, result), or (False, None) when `call` takes too long. Its thread is then left behind. Re-raises errors."""
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
    """Call nvmlInit. Raises UserError with exit code 3 that says what is missing."""
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
    """The result of an NVML call. None where the device does not have it or may not say it."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def list_gpus() -> list[Gpu]:
    """Every GPU that NVML shows and this process may use, in the driver's order.

    A GPU that does not answer has no handle, and the UUID `unanswered:<index>`. Left out is a GPU that NVML counts but
    does not permit (a cgroup): CUDA does not see it either. The driver may have to start GPUs; a note says that this
    waits for them.
    """
    try:
        answered, count = within(INIT_LIMIT_S, pynvml.nvmlDeviceGetCount)
    except pynvml.NVMLError as error:
        raise UserError(f"no NVML: nvmlDeviceGetCount says '{error}'; reload the driver", NO_METER) from error
    if not answered:
        raise UserError(f"no NVML: nvmlDeviceGetCount did not answer in {INIT_LIMIT_S:g} s", NO_METER)
    answers: dict[int, Gpu | None] = {}

    def probe(index: int) -> None:
        answers[index] = _probe(index)

    for index in range(count):
        threading.Thread(target=probe, args=(index,), daemon=True).start()
    _wait(answers, count)
    silent = {index: Gpu(index, f"unanswered:{index}", "unknown", None) for index in range(count)}
    return [gpu for _, gpu in sorted((silent | dict(answers)).items()) if gpu is not None]


def _wait(answers: dict[int, Gpu | None], count: int) -> None:
    """Wait until all have answered, or until the time of the others is over."""
    begin = last = time.monotonic()
    known, told = 0, False
    while (seen := len(answers)) < count:
        now = time.monotonic()
        if seen > known:
            known, last = seen, now
        states = [gpu.facts.get("persistence") for gpu in list(answers.values()) if gpu is not None]
        starting = not seen or False in states
        limit_s = START_LIMIT_S if starting else PROBE_LIMIT_S
        if now - begin > limit_s or (seen and starting and now - last > NEXT_LIMIT_S):
            return
        if now - begin > PROBE_LIMIT_S and not told:
            told = True
            print(f"note: {_WAITS}", file=sys.stderr, flush=True)
        time.sleep(_POLL_S)


_WAITS = (
    f"waiting up to {START_LIMIT_S:g} s for the GPUs to start; with persistence mode (nvidia-smi -pm 1) they would be "
    "ready"
)


def _probe(index: int) -> Gpu | None:
    """The GPU as it answers. None where this process may not use it."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
    except pynvml.NVMLError_NoPermission:
        return None
    except pynvml.NVMLError:
        return Gpu(index, f"unanswered:{index}", "unknown", None)
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
