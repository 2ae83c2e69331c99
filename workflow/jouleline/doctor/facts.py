"""The facts of this node, found without CUDA: a dictionary of plain values that can be written as JSON."""

import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import pynvml

from jouleline.errors import UserError
from jouleline.measure.meters.devices import Gpu, choose
from jouleline.measure.meters.nvml_probe import attempt, list_gpus, open_nvml, within
from jouleline.measure.meters.nvml_read import FastReader
from jouleline.measure.node.environment import choose_device, cpu_name
from jouleline.measure.node.gpus import driver_cuda, driver_version
from jouleline.measure.node.network import interface_to
from jouleline.measure.node.torch_build import torch_build

LATENCY_CALLS = 20
# The slowest known counter moves every 0.1 s, and two moves make a tick.
TICK_LIMIT_S = 0.5
ASK_LIMIT_S = 5.0
HUB = ("huggingface.co", 443)
HUB_LIMIT_S = 3.0
_UNSYNCHRONISED = 0x40


def gather(wanted: str, peers: Sequence[str] | None, hub: bool) -> dict[str, Any]:
    """The facts of this node for `wanted` (auto, cpu or cuda). `peers` are the names of the other nodes; None: Slurm's.

    The network is tried only where the campaign needs a `hub`.
    """
    try:
        device = choose_device(wanted)
        error = None
    except UserError as missing:
        device, error = "cuda", str(missing)
    scratch = Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    names = slurm_peers() if peers is None else peers
    return {
        "host": socket.gethostname(),
        "device": device,
        "cpu": cpu_name(),
        **_of_gpus(device, error),
        "shm_byte": _free("/dev/shm"),
        "scratch": str(scratch),
        "scratch_byte": _free(scratch) or 0,
        "peers": {name: interface_to(name) for name in names},
        "clock_synchronised": clock_synchronised(),
        "network": _reaches(HUB) if hub else None,
    }


def _of_gpus(device: str, error: str | None) -> dict[str, Any]:
    none = {"gpus": [], "nvml_error": error, "nvml_count": 0, "look_s": 0.0}
    none |= {"torch": None, "driver": None, "driver_cuda": None}
    if device == "cpu" or error:
        return none
    begin = time.monotonic()
    try:
        open_nvml()
        there = list_gpus()
        visible = [chosen.gpu for chosen in choose("auto", os.environ, there)]
    except UserError as missing:
        return none | {"nvml_error": str(missing)}
    look_s = time.monotonic() - begin
    return {
        # Two slices of one GPU count as one GPU here.
        "gpus": [_of_gpu(gpu) for gpu in {gpu.index: gpu for gpu in visible}.values()],
        "nvml_error": None,
        "nvml_count": attempt(pynvml.nvmlDeviceGetCount),
        "look_s": look_s,
        "torch": torch_build(),
        "driver": driver_version(),
        "driver_cuda": driver_cuda(),
    }


def _of_gpu(gpu: Gpu) -> dict[str, Any]:
    """What NVML says about one GPU. None for what it does not say."""
    facts = {"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name, "slices": len(gpu.mig)}
    facts |= {"capability": gpu.facts.get("compute_capability"), "persistence": gpu.facts.get("persistence")}
    unknown = dict.fromkeys(("compute_mode", "processes", "latency_s", "counter", "tick_s"))
    facts |= unknown | {"silent": gpu.handle is None}
    if gpu.handle is None:
        return facts
    answered, more = within(ASK_LIMIT_S, lambda: _ask(gpu.handle))
    return facts | (more if answered else {"silent": True})


def _ask(handle: Any) -> dict[str, Any]:
    running = attempt(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    reader = FastReader(handle, 0, lambda *_: None)
    times_s = []
    for _ in range(LATENCY_CALLS):
        begin = time.perf_counter()
        reader.read()
        times_s.append(time.perf_counter() - begin)
    return {
        "compute_mode": attempt(pynvml.nvmlDeviceGetComputeMode, handle),
        "processes": None if running is None else [process.pid for process in running],
        "latency_s": median(times_s),
        "counter": reader.has_counter,
        "tick_s": _tick_s(reader) if reader.has_counter else None,
    }


def _tick_s(reader: FastReader) -> float | None:
    """Seconds between two moves of the energy counter. None where it did not move twice."""
    begin, last, moves = time.monotonic(), reader.read()[1], []
    while len(moves) < 2 and time.monotonic() - begin < TICK_LIMIT_S:
        time.sleep(0.001)
        now = reader.read()[1]
        if now != last:
            last = now
            moves.append(time.monotonic())
    return moves[1] - moves[0] if len(moves) == 2 else None


def _free(folder: str | Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def slurm_peers() -> list[str]:
    """The other nodes of this Slurm job. None outside a job."""
    nodes, own = os.environ.get("SLURM_JOB_NODELIST"), os.environ.get("SLURMD_NODENAME")
    if not nodes or not shutil.which("scontrol"):
        return []
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "hostnames", nodes]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=ASK_LIMIT_S
        )
        return [name for name in done.stdout.split() if name != own]
    return []


def clock_synchronised() -> bool | None:
    """Whether the kernel regards its wall clock as synchronised. None where it does not say."""
    # struct timex: the flags come first, the status is the sixth long.
    times = (ctypes.c_long * 64)()
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(times))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else not _status(times) & _UNSYNCHRONISED


def _status(times: Any) -> int:
    # unsigned modes (4 bytes, padded), long offset, freq, maxerror, esterror, int status.
    return int(ctypes.c_int.from_buffer(times, 5 * ctypes.sizeof(ctypes.c_long)).value)


def _reaches(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, HUB_LIMIT_S):
        return True
    return False
