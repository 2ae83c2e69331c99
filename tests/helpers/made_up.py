"""Readings that are made up, of counters whose energy is known, and the regions found in them."""

import numpy as np
from jouleline.energy.integrate import regions
from jouleline.energy.load import Measurement, Node, Regions, Series
from jouleline.schemas.samples import SAMPLES

POLL_S, TICK_S = 0.02, 0.1
POWER_W = 300.0


def fast_lane(seconds: float, energy_of=lambda t: POWER_W * t, power_w=POWER_W) -> dict[str, np.ndarray]:
    """Readings every 20 ms of a counter that ticks every 100 ms; `energy_of` maps tick times to J."""
    t = np.arange(0, seconds, POLL_S) + 0.0007
    ticks = np.floor(t / TICK_S) * TICK_S
    lane = {name: np.full(len(t), np.nan) for name in SAMPLES.names}
    lane |= {"t_us": t * 1e6, "call_us": np.full(len(t), 20.0), "status": np.zeros(len(t))}
    return lane | {"energy_mj": np.floor(energy_of(ticks) * 1e3), "power_mw": np.full(len(t), power_w * 1e3)}


def slow_lane(seconds: float, power_w=POWER_W) -> dict[str, np.ndarray]:
    t = np.arange(0.5, seconds, 1.0)
    lane = {name: np.full(len(t), np.nan) for name in SAMPLES.names}
    lane |= {
        "t_us": t * 1e6,
        "call_us": np.full(len(t), 300.0),
        "power_average_mw": np.full(len(t), power_w * 1e3),
    }
    zeros = (
        "throttle_sw_thermal_ns",
        "throttle_hw_thermal_ns",
        "throttle_power_brake_ns",
        "foreign_processes",
    )
    lane |= {name: np.zeros(len(t)) for name in (*zeros, "throttle_power_ns")}
    return lane | {"temperature_c": np.full(len(t), 50.0), "sm_clock_mhz": np.full(len(t), 1980.0)}


def measured(fast, slow, start_s: float, end_s: float, events=()) -> dict:
    """The total row of one region on one GPU; `events` are beside those of any measurement."""
    info = {"index": 0, "uuid": "GPU-0", "name": "fake", "kind": "gpu", "role": "job", "counter": "ticking"}
    one = np.array([0])
    rank = Regions(
        0, ["window"], one, [None], np.array([start_s * 1e6]), np.array([end_s * 1e6]), one, np.array([])
    )
    end_us = float(fast["t_us"][-1])
    meta = {
        "host": "n",
        "period_ms": 20.0,
        "start_us": 0,
        "start_utc_us": 0,
        "end_us": end_us,
        "devices": [info],
    }
    node = Node(
        0, meta, [{"kind": "started"}, *events, {"kind": "ended"}], [Series(info, fast, slow)], [rank], {}
    )
    return next(r for r in regions(Measurement("r", [node], 1)) if r["device_uuid"] is None)
