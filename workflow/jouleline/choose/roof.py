"""Where candidates and measured rows are on a device's roofline: FLOP per byte of memory, and FLOP/s reached."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jouleline.architecture import proxies
from jouleline.model.machine import Machines
from jouleline.model.table.checks import usable
from jouleline.model.table.runs import Columns, take


def work(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The proxies of configurations, per device and step, [K] each."""
    devices = (columns["nodes"] * columns["gpus_per_node"]).astype(float)
    parallel = {"device_count": devices, "data_parallel": devices / columns["tensor_parallel"].astype(float)}
    return proxies({**columns, **parallel})


def place(columns: Mapping[str, np.ndarray], time_s: np.ndarray) -> dict[str, np.ndarray]:
    """Intensity (FLOP per byte) and rate (FLOP/s of one device) of configurations whose `steps` take `time_s`, [K].

    For fused attention under a causal mask only the part that the mask leaves counts. So no mark is higher than its
    kernel works.
    """
    done = work(columns)
    masked = done["attention_flop"] - done["attention_causal_flop"]
    flop = done["compute_flop"] - np.where(columns["attention"] == "sdpa", masked, 0.0)
    return {
        "flop_per_byte": flop / done["memory_byte"],
        "flop_per_s": flop * columns["steps"].astype(float) / time_s,
    }


def measured(runs: Columns, device: str, precision: str) -> list[list[Any]]:
    """[intensity, rate, run id] of the usable runs of a complete runs table on this device in this precision."""
    kept = usable(runs) & (runs["device"] == device) & (runs["precision"] == precision)
    kept &= runs["time_s"].astype(float) > 0  # false for an unknown time, too
    some = take(runs, kept)
    if not kept.any():
        return []
    places = place(some, some["time_s"].astype(float)).values()
    rows = zip(*places, some["run_id"], strict=True)
    return [[float(f"{one:.6g}") for one in (x, y)] + [run_id] for x, y, run_id in rows]


def limits(machines: Machines, device: str, precision: str) -> dict[str, Any] | None:
    """The roof of a device: its peak (FLOP/s) and its memory bandwidth (B/s), calibrated or from its data sheet. None
    where one of them is unknown."""
    peak = machines.get(device, "peak_flops", precision)
    bandwidth = machines.get(device, "memory_bandwidth_triad")
    if not peak or not bandwidth:
        return None
    source = "calibration" if machines.calibrated(device) else "data sheet"
    return {"peak_flop_per_s": peak, "memory_byte_per_s": bandwidth, "source": source, "device": device}
