"""Invented readings of counters whose energy is known, and the regions found in them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jouleline.energy.integrate import regions
from jouleline.energy.load import Measurement, Node, Regions, Series
from jouleline.measure.raw.markers import END, START, MarkerFile, encode_name
from jouleline.schemas.samples import SAMPLES

POLL_S, TICK_S = 0.02, 0.1
POWER_W = 300.0
DEVICE = {"index": 0, "uuid": "GPU-0", "name": "fake", "kind": "gpu", "role": "job", "counter": "ticking"}


def fast_lane(seconds: float, energy_of=lambda t: POWER_W * t, power_w=POWER_W) -> dict[str, np.ndarray]:
    """Readings every 20 ms of a counter that ticks every 100 ms. `energy_of` maps tick times to J."""
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
    """The total row of one region on one GPU. `events` are added to those of any measurement."""
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
        "devices": [DEVICE],
    }
    node = Node(
        0, meta, [{"kind": "started"}, *events, {"kind": "ended"}], [Series(DEVICE, fast, slow)], [rank], {}
    )
    return next(r for r in regions(Measurement("r", [node], 1)) if r["device_uuid"] is None)


def measurement(folder: Path) -> None:
    """The files of a measurement of one GPU for 10 s, with a region from 2 s to 8 s."""
    schema, lanes = SAMPLES.arrow_schema(), []
    for number, lane in enumerate((fast_lane(10), slow_lane(10))):
        zeros = lane["t_us"] * 0
        lane |= {"lane": zeros + number, "node": zeros, "device": zeros}
        columns = [pa.array(lane[f.name], from_pandas=True).cast(f.type, safe=False) for f in schema]
        lanes.append(pa.table(columns, schema=schema))
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.concat_tables(lanes), folder / "samples.parquet")
    (folder / "markers").mkdir()
    markers = MarkerFile(str(folder / "markers"), 0)
    markers.write(START, 2_000_000_000, 1, 0, encode_name("window"))
    markers.write(END, 8_000_000_000, 1, 0, encode_name("window"))
    meta = {"host": "n", "period_ms": 20.0, "start_us": 0, "start_utc_us": 0, "end_us": 10**7}
    (folder / "meta.json").write_text(json.dumps(meta | {"devices": [DEVICE]}))
    (folder / "events.jsonl").write_text('{"kind": "started", "t_us": 1}\n{"kind": "ended", "t_us": 9}\n')
