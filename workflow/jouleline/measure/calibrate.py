"""Calibration of a node: what a device can do and what it draws, with a sidecar beside it, before any training."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.errors import UserError
from jouleline.files import canonical_json, read_json, write_json
from jouleline.measure import calibrate_rank
from jouleline.measure.calibrate_timing import entry
from jouleline.measure.environment import choose_device, describe
from jouleline.measure.launcher import Sidecar
from jouleline.provenance import digest_of
from jouleline.schemas.calibration import QUANTITIES

MOST_CPU_RANKS = 8
# Idle before the ranks start, as a part of the time budget.
_IDLE_SHARE, _LONGEST_IDLE_S, _SHORTEST_IDLE_S = 0.05, 5.0, 0.5
# Region of each power; idle is what the sidecar sees before any rank starts.
_STATES = {
    "context_idle_power_w": "context_idle",
    "active_wait_host_power_w": "active_wait_host",
    "memory_bound_power_w": "memory_bound",
    "compute_bound_power_w": "compute_bound",
    "active_wait_comm_power_w": "active_wait_comm",
}


def calibrate(protocol: Mapping[str, Any], budget_s: float) -> dict[str, Any]:
    """Measure this node within about `budget_s` seconds; returns the content of calibration.json.

    `protocol` is complete. Values are in the units of schemas.calibration.QUANTITIES; what cannot be had is
    None. Raises UserError where a process of it fails, with its last line.
    """
    begin = time.monotonic()
    device = choose_device(protocol["device"])
    idle_s = min(max(_IDLE_SHARE * budget_s, _SHORTEST_IDLE_S, protocol["idle_s"]), _LONGEST_IDLE_S)
    with tempfile.TemporaryDirectory(prefix="jouleline-calibration-") as scratch:
        folder = Path(scratch)
        sidecar = Sidecar(folder / "meter", dict(protocol) | {"idle_s": idle_s})
        try:
            ready = sidecar.wait_ready(protocol["startup_timeout_s"])
            job = {
                **{"folder": scratch, "device": device, "ranks": _ranks(device, protocol, ready)},
                **{"threads": protocol["threads_per_device"], "timeout_s": protocol["startup_timeout_s"]},
                "end_s": begin + budget_s,
            }
            _run_ranks(job)
        finally:
            sidecar.terminate()
        found = read_json(folder / "entries.json")
        powers = _powers(regions(load_measurement(folder / "meter")), job["ranks"])
    order = list(QUANTITIES)
    entries = sorted([*found["entries"], *powers], key=lambda item: order.index(item["quantity"]))
    return _report(device, found["device"], job, ready, entries) | {
        "duration_s": round(time.monotonic() - begin, 1)
    }


def _ranks(device: str, protocol: Mapping[str, Any], ready: Mapping[str, Any]) -> int:
    """Devices of this node: the job's GPUs, or as many ranks as the CPUs of this process have room for."""
    if device == "cuda":
        gpus = [one for one in ready["devices"] if one.get("kind") == "gpu" and one.get("role") == "job"]
        return max(len(gpus), 1)
    room = len(os.sched_getaffinity(0)) // protocol["threads_per_device"]
    return min(max(room, 1), MOST_CPU_RANKS)


def _run_ranks(job: dict[str, Any]) -> None:
    folder = Path(job["folder"])
    write_json(folder / "job.json", job)
    environment = os.environ | {
        "JOULELINE_MARKERS": str(folder / "meter" / "markers"),
        "OMP_NUM_THREADS": str(job["threads"]),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", calibrate_rank.__name__, str(folder / "job.json")]
    processes = []
    try:
        for rank in range(job["ranks"]):
            with open(folder / f"rank-{rank}.log", "wb") as log:
                processes.append(
                    subprocess.Popen([*command, str(rank)], env=environment, stdout=log, stderr=log)
                )
        _wait_for_all(processes, folder)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait_for_all(processes: list[subprocess.Popen], folder: Path) -> None:
    """Until all have ended well; raises UserError with the last line of the first that has not."""
    while True:
        codes = [process.poll() for process in processes]
        for rank, code in enumerate(codes):
            if code:
                lines = (folder / f"rank-{rank}.log").read_text(errors="replace").strip().splitlines()
                said = lines[-1] if lines else "it said nothing"
                raise UserError(
                    f"calibration rank {rank} ended with {code}: {said}; see the device's state", 1
                )
        if all(code == 0 for code in codes):
            return
        time.sleep(calibrate_rank.POLL_S)


def _powers(rows: list[dict[str, Any]], ranks: int) -> list[dict[str, Any]]:
    """Power entries from the regions of the devices that were used (not their totals)."""
    jobs = [row for row in rows if row["device_uuid"] is not None and row.get("role") == "job"]
    found = []
    for quantity, name in _STATES.items():
        here = [row for row in jobs if row["region"] == name]
        share = ranks if name == "active_wait_comm" else 1
        if name == "active_wait_comm" and ranks == 1:
            found.append(entry(quantity, None, "one device: there is nothing to communicate with"))
        else:
            found.append(_power(quantity, here, share))
        if name == "context_idle":
            idle = [row | {"energy_j": row["idle_energy_j"]} for row in here]
            found.append(_power("idle_power_w", idle, share))
    return found


def _power(quantity: str, rows: list[dict[str, Any]], share: int) -> dict[str, Any]:
    """Mean power of `rows` together, divided by `share` devices; None where a row is invalid or has no energy."""
    bad = sorted(
        {row["reasons"] or "no energy" for row in rows if row["verdict"] == "invalid" or not row["energy_j"]}
    )
    if bad or not rows:
        return entry(quantity, None, f"not measured: {'; '.join(bad) or 'no meter saw it'}")
    energy_j = sum(row["energy_j"] for row in rows)
    variance = [(row["energy_edge_u_j"] or 0) ** 2 + (row["energy_gain_u_j"] or 0) ** 2 for row in rows]
    unknown = any(row["energy_edge_u_j"] is None or row["energy_gain_u_j"] is None for row in rows)
    spread = None if unknown else sum(variance) ** 0.5 / energy_j
    source, method = rows[0]["energy_source"], rows[0]["method"]
    how = "estimate: declared watts x CPU time" if source == "estimate" else f"{source}, {method}"
    seconds = max(row["time_s"] for row in rows)
    return entry(quantity, energy_j / seconds / share, f"{how}, over {seconds:.1f} s", u_rel=spread, n=1)


def _report(
    device: str,
    name: str | None,
    job: Mapping[str, Any],
    ready: Mapping[str, Any],
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    facts = describe(device, {"device": name})
    software = {
        **{key: facts[key] for key in ("os", "kernel", "python", "driver")},
        **{package: facts["packages"][package] for package in ("torch", "numpy")},
        **{"devices": job["ranks"], "threads_per_device": job["threads"] if device == "cpu" else None},
    }
    identity = {"device": facts["device"], "device_kind": device, "software": software}
    return {
        "schema": 1,
        **identity,
        "digest": digest_of([canonical_json(identity)]),
        "host": facts["host"],
        "meter": ready["meter"],
        "quantities": entries,
    }


def table_rows(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the calibration table from the content of calibration.json."""
    shared = {key: calibration[key] for key in ("device", "device_kind")}
    return [shared | item for item in calibration["quantities"]]
