"""Segments on a disk that cannot take them."""

import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.files import write_json
from jouleline.measure.meters.base import FAST, SLOW, LaneSpec
from jouleline.measure.raw import samples as segments
from jouleline.measure.raw.events import EventLog, read_events
from jouleline.measure.raw.markers import END, START, MarkerFile, encode_name
from jouleline.measure.raw.samples import compact, read_samples
from jouleline.measure.sidecar import writer as writing
from jouleline.measure.sidecar.writer import SegmentWriter

FAST_LANE = LaneSpec("nvml", FAST, 0.02, ("status", "energy_mj", "power_mw"), {})
SLOW_LANE = LaneSpec("state", SLOW, 1.0, ("temperature_c",), {})
POWER_W, TICK_S = 300.0, 0.1


def batch(begin_s: float, end_s: float) -> list:
    """What the lanes of one GPU keep in a stretch of time."""
    fast = []
    for t in np.arange(begin_s, end_s, 0.02):
        now_ns = int(t * 1e9) + 700_000
        energy_mj = int(POWER_W * np.floor(now_ns * 1e-9 / TICK_S) * TICK_S * 1e3)
        fast.append((0, now_ns, now_ns + 20_000, now_ns - 50_000, (0, energy_mj, int(POWER_W * 1e3))))
    slow = [
        (0, int(t * 1e9), int(t * 1e9) + 9000, int(t * 1e9), (50,)) for t in np.arange(begin_s, end_s, 1.0)
    ]
    return [(FAST_LANE, fast), (SLOW_LANE, slow)]


def test_rows_become_a_table_without_loss(tmp_path):
    rows = [
        (0, 5_000_000, 5_020_000, 4_000_000, (0, None, 7)),
        (1, 6_000_999, 6_000_999, 7_000_000, (3, 2**52, None)),
    ]
    table = segments.rows_to_table([(FAST_LANE, rows)])
    found = table.select(
        ["device", "t_us", "call_us", "late_us", "status", "energy_mj", "power_mw"]
    ).to_pylist()
    assert found == [
        {
            "device": 0,
            "t_us": 5000,
            "call_us": 20,
            "late_us": 1000,
            "status": 0,
            "energy_mj": None,
            "power_mw": 7,
        },
        {
            "device": 1,
            "t_us": 6000,
            "call_us": 0,
            "late_us": 0,
            "status": 3,
            "energy_mj": 2**52,
            "power_mw": None,
        },
    ]
    assert table["temperature_c"].null_count == 2


@pytest.mark.fault(
    "disk full until memory is short", "`samples_thinned`; every second fast reading is dropped"
)
def test_a_disk_that_stays_full_thins_the_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PENDING_ROWS", 500)
    batches = [batch(at, at + 4) for at in range(0, 24, 4)]
    writer = SegmentWriter(tmp_path, lambda: batches.pop(0), EventLog(tmp_path))
    writer.folder.rmdir()
    writer.folder.write_text("no folder can be made here")
    for _ in range(6):
        writer.flush()
    assert read_samples(tmp_path).num_rows == 0 and 250 < writer.pending[0].num_rows < 750
    compact(tmp_path, tmp_path, writer.pending)
    marks = MarkerFile(str(tmp_path / "markers"), 0)
    for kind, at_s in ((START, 3.0), (END, 21.0)):
        marks.write(kind, int(at_s * 1e9), 1, 0, encode_name("window"))
    info = {"index": 0, "uuid": "GPU-0", "name": "fake", "kind": "gpu", "role": "job", "counter": "ticking"}
    write_json(tmp_path / "meta.json", {"devices": [info], "period_ms": 20.0, "end_us": 24_000_000})
    kinds = [event["kind"] for event in read_events(tmp_path)]
    assert kinds.count("disk_failed") == 1 and "samples_thinned" in kinds
    # The events are of now, the samples of the first seconds of the clock.
    events = [event | {"t_us": 0} for event in read_events(tmp_path)]
    monkeypatch.setattr("jouleline.measure.raw.merge.read_events", lambda _: events)
    row = next(r for r in regions(load_measurement(tmp_path)) if r["device_uuid"] == "GPU-0")
    assert "samples_thinned" in row["reasons"] and row["verdict"] == "degraded"
    assert row["energy_j"] == pytest.approx(POWER_W * 18, rel=0.01)


def test_a_disk_that_recovers_has_every_row(tmp_path):
    batches = [batch(0, 4), batch(4, 8), batch(8, 12)]
    expected = sum(len(rows) for two in batches for _, rows in two)
    writer = SegmentWriter(tmp_path, lambda: batches.pop(0), EventLog(tmp_path))
    writer.folder.rmdir()
    writer.folder.write_text("no folder can be made here")
    writer.flush()
    writer.folder.unlink()
    writer.flush(), writer.flush()
    assert compact(tmp_path, tmp_path)["rows"] == expected
    assert [event["kind"] for event in read_events(tmp_path)] == ["disk_failed", "disk_recovered"]


def test_a_long_measurement_is_compacted_piece_by_piece(tmp_path, monkeypatch):
    batches = [batch(at, at + 4) for at in range(0, 40, 4)]
    writer = SegmentWriter(tmp_path, lambda: batches.pop(0), EventLog(tmp_path))
    for _ in range(10):
        writer.flush()
    expected = segments.sort(read_samples(tmp_path))
    monkeypatch.setattr(segments, "CHUNK_ROWS", 500)
    found = compact(tmp_path, tmp_path)
    file = pq.ParquetFile(tmp_path / "samples.parquet")
    assert file.num_row_groups > 3 and not (tmp_path / "samples").exists()
    assert segments.sort(read_samples(tmp_path)).equals(expected)
    assert found == {"rows": expected.num_rows, "call_us_median": 20.0, "late_us_median": 50.0}


@pytest.mark.parametrize("devices", [2, 8])
def test_thinning_leaves_every_device_half_of_its_fast_readings(devices):
    # As the lanes keep them: one reading of each device after the other.
    rows = [
        (device, t_ns, t_ns, t_ns, (0, 1, 1)) for t_ns in range(0, 100_000, 1000) for device in range(devices)
    ]
    seldom = [(device, t_ns, t_ns, t_ns, (50,)) for t_ns in (0, 1000) for device in range(devices)]
    thinned = segments.thin(segments.rows_to_table([(FAST_LANE, rows), (SLOW_LANE, seldom)]))
    found = [(row["device"], row["lane"], row["t_us"]) for row in thinned.to_pylist()]
    for device in range(devices):
        assert [t for d, lane, t in found if (d, lane) == (device, FAST)] == list(range(0, 100, 2))
        assert [t for d, lane, t in found if (d, lane) == (device, SLOW)] == [0, 1]


@pytest.mark.fault("samples folder that may no longer be written", "`disk_failed`; samples wait in memory")
def test_a_folder_that_refuses_the_writer_does_not_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "FLUSH_S", 0.05)
    writer = SegmentWriter(tmp_path, lambda: batch(0, 4), EventLog(tmp_path))
    # Where even the superuser has no permission to make a file.
    writer.folder.rmdir()
    writer.folder.symlink_to("/sys/kernel")
    writer.start()
    until = time.monotonic() + 20
    while not writer.failing and time.monotonic() < until:
        time.sleep(0.01)
    writer.folder.unlink()
    while writer.failing and time.monotonic() < until:
        time.sleep(0.01)
    assert writer.is_alive()
    writer.finish()
    kinds = [event["kind"] for event in read_events(tmp_path)]
    assert kinds == ["disk_failed", "disk_recovered"]
    assert "permission" in read_events(tmp_path)[0]["message"].lower()
    assert read_samples(tmp_path).num_rows == writer.rows_written > 204


def test_a_writer_that_fails_in_any_way_goes_on(tmp_path):
    """What no one foresaw, too: a lane whose rows make no table."""
    torn = [[(FAST_LANE, [(0, 1)])], batch(0, 4)]
    writer = SegmentWriter(tmp_path, lambda: torn.pop(0), EventLog(tmp_path))
    writer.flush()
    writer.flush()
    assert [event["kind"] for event in read_events(tmp_path)] == ["flush_failed"]
    assert read_samples(tmp_path).num_rows == 204


COMPACT = """
import os, sys
from pathlib import Path
from jouleline.measure.sidecar.process import LIGHT_ARROW, peak_rss_mib
os.environ.update(LIGHT_ARROW)
from jouleline.measure.meters.base import FAST, LaneSpec
from jouleline.measure.raw.events import EventLog
from jouleline.measure.raw.samples import compact
from jouleline.measure.sidecar.writer import SegmentWriter

spec = LaneSpec("nvml", FAST, 0.02, ("status", "energy_mj", "power_mw"), {})
def rows(part):
    for number in range(200 * part, 200 * part + 200):
        for gpu in range(8):
            t_ns = number * 20_000_000 + gpu * 30_000
            yield gpu, t_ns, t_ns + 25_000, t_ns - 60_000, (0, number * 6000 + gpu, 300_000 + number % 977)
writer = SegmentWriter(Path(sys.argv[1]), lambda: [(spec, list(rows(writer.number)))], EventLog(Path(sys.argv[1])))
import pyarrow.parquet
before_mib = peak_rss_mib()
for _ in range(120):
    writer.flush()
calls = compact(Path(sys.argv[1]), Path(sys.argv[1]))
print(calls["rows"], peak_rss_mib() - before_mib)
"""


def test_compacting_eight_minutes_of_eight_gpus_stays_small(tmp_path):
    """In a process of its own, as the sidecar.

    How much of its libraries a process maps depends on the page cache (67 or 103 MiB were seen): what it needs beyond
    them counts.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMPACT, tmp_path], capture_output=True, text=True, check=True
    )
    rows, more_mib = done.stdout.split()
    assert int(rows) == 120 * 1600 and float(more_mib) < 40
