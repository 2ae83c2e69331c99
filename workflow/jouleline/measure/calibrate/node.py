"""Calibration of a node before any training, beside a sidecar: what a device can do, and the power that it draws."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import canonical_json, read_json, write_json
from jouleline.measure.calibrate import rank as calibrate_rank
from jouleline.measure.calibrate.document import identity
from jouleline.measure.meters import rapl
from jouleline.measure.node import files, gpu_users, gpus
from jouleline.measure.node.cpus import unbind
from jouleline.measure.node.environment import choose_device, describe
from jouleline.measure.node.network import use_interface
from jouleline.measure.raw.markers import ENVIRONMENT
from jouleline.measure.sidecar.client import Sidecar, options_of

MOST_CPU_RANKS = 8
# The keys of a protocol that can change a calibration.
_OF_PROTOCOL = (
    *("device", "meter", "period_ms", "threads_per_device"),
    *("idle_s", "estimate_w_per_core", "estimate_idle_w"),
)
# The share of the time budget that is idle before the ranks start.
_IDLE_SHARE, _LONGEST_IDLE_S, _SHORTEST_IDLE_S = 0.05, 5.0, 0.5


def calibrate(protocol: Mapping[str, Any], budget_s: float, folder: str | Path) -> dict[str, Any]:
    """Measure this node within about `budget_s` seconds. Returns the content of calibration.json without the powers.

    `protocol` is complete. Values are in the units of schemas.calibration.QUANTITIES; an unknown value is None. The
    measurement directory of the power states stays in `folder`/meter, with the ranks' regions. Raises UserError where
    one of its processes fails, with its last line.
    """
    begin, folder = time.monotonic(), Path(folder)
    device = choose_device(protocol["device"])
    unbind()
    if device == "cuda":
        gpu_users.require_unused()
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # one numbering for sidecar and ranks
    idle_s = min(max(_IDLE_SHARE * budget_s, _SHORTEST_IDLE_S, protocol["idle_s"]), _LONGEST_IDLE_S)
    meter = files.meter_folder(folder)
    sidecar = Sidecar(meter, options_of({**protocol, "idle_s": idle_s}), files.sidecar_log(meter))
    try:
        ready = sidecar.wait_ready(protocol["startup_timeout_s"])
        job = {
            **{"folder": str(folder), "device": device, "ranks": _ranks(device, protocol, ready)},
            **{"threads": protocol["threads_per_device"], "timeout_s": protocol["startup_timeout_s"]},
            **{"budget_s": budget_s, "end_s": begin + budget_s, "parent": os.getpid()},
        }
        _run_ranks(job)
    finally:
        sidecar.terminate()
    found = read_json(files.entries_file(folder))
    return {
        "schema": 1,
        **identity(device, found["device"], job),
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "meter": ready["meter"],
        "duration_s": round(time.monotonic() - begin, 1),
        "quantities": found["entries"],
    }


def holds_for(protocol: Mapping[str, Any], budget_s: float) -> dict[str, Any] | None:
    """What a calibration of this node holds for, found without measuring: its devices, software and way of measuring.

    None where the devices are unknown: NVML does not answer, or there is only a part of a GPU (MIG).
    """
    device = choose_device(protocol["device"])
    facts = describe(device)
    if device == "cpu":
        devices: list[Any] = [facts["cpu"]] * _cpu_ranks(protocol)
    else:
        try:
            found = gpus.job_gpus()
        except UserError:
            return None
        if not found or any(gpu.mig for gpu in found):
            return None
        devices = sorted(([gpu.name, gpu.facts] for gpu in found), key=canonical_json)
    software = {key: facts[key] for key in ("os", "kernel", "python", "driver", "packages")}
    return {
        **{"devices": devices, "software": software, "budget_s": budget_s},
        # An estimated power must not be kept where the energy becomes readable later.
        "host_counter": rapl.readable(),
        "protocol": {key: protocol[key] for key in _OF_PROTOCOL},
    }


def _ranks(device: str, protocol: Mapping[str, Any], ready: Mapping[str, Any]) -> int:
    """Devices of this node: the job's GPUs, or as many ranks as fit on the CPUs of this process."""
    if device == "cuda":
        ours = [one for one in ready["devices"] if one.get("kind") == "gpu" and one.get("role") == "job"]
        return max(len(ours), 1)
    return _cpu_ranks(protocol)


def _cpu_ranks(protocol: Mapping[str, Any]) -> int:
    room = len(os.sched_getaffinity(0)) // protocol["threads_per_device"]
    return min(max(room, 1), MOST_CPU_RANKS)


def _run_ranks(job: dict[str, Any]) -> None:
    folder = Path(job["folder"])
    write_json(files.job_file(folder), job)
    use_interface(None)
    environment = os.environ | {
        ENVIRONMENT: str(files.markers_folder(files.meter_folder(folder))),
        "OMP_NUM_THREADS": str(job["threads"]),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", calibrate_rank.__name__, str(files.job_file(folder))]
    processes = []
    try:
        for rank in range(job["ranks"]):
            with open(files.rank_log(folder, rank), "wb") as log:
                processes.append(
                    subprocess.Popen([*command, str(rank)], env=environment, stdout=log, stderr=log)
                )
        _wait_for_all(processes, folder)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait_for_all(processes: list[subprocess.Popen], folder: Path) -> None:
    """Wait until all have ended well. Raises UserError with the last line of the first that failed."""
    while True:
        codes = [process.poll() for process in processes]
        for rank, code in enumerate(codes):
            if code:
                said = "".join(files.last_lines(files.rank_log(folder, rank))) or "it said nothing"
                raise UserError(
                    f"calibration rank {rank} ended with {code}: {said}; see the device's state", 1
                )
        if all(code == 0 for code in codes):
            return
        time.sleep(calibrate_rank.POLL_S)
