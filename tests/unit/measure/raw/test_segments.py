"""Segments on a disk that cannot take them."""

import gzip
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.files import write_json
from jouleline.measure.meters.base import FAST, SLOW
from jouleline.measure.raw import samples, segments
from jouleline.measure.raw.events import EventLog, read_events
from jouleline.measure.raw.markers import END, START, MarkerFile, encode_name
from jouleline.measure.raw.samples import compact, read_samples
from jouleline.measure.raw.segments import Batch
from jouleline.measure.sidecar import compaction
from jouleline.measure.sidecar import writer as writing
from jouleline.measure.sidecar.writer import SegmentWriter

FAST_COLUMNS, SLOW_COLUMNS = ("status", "energy_mj", "power_mw"), ("temperature_c",)
POWER_W, TICK_S = 300.0, 0.1


def batch(begin_s: float, end_s: float) -> list[Batch]:
    """What the lanes of one GPU keep in a stretch of time."""
    fast = []
    for t in np.arange(begin_s, end_s, 0.02):
        now_ns = int(t * 1e9) + 700_000
        energy_mj = int(POWER_W * np.floor(now_ns * 1e-9 / TICK_S) * TICK_S * 1e3)
        fast.append((0, now_ns, now_ns + 20_000, now_ns - 50_000, (0, energy_mj, int(POWER_W * 1e3))))
    slow = [
        (0, int(t * 1e9), int(t * 1e9) + 9000, int(t * 1e9), (50,)) for t in np.arange(begin_s, end_s, 1.0)
    ]
    return [Batch(FAST, FAST_COLUMNS, fast), Batch(SLOW, SLOW_COLUMNS, slow)]


def test_rows_become_a_table_without_loss(tmp_path):
    rows = [
        (0, 5_000_000, 5_020_000, 4_000_000, (0, None, 7)),
        (1, 6_000_999, 6_000_999, 7_000_000, (3, 2**52, None)),
    ]
    table = samples.rows_to_table([Batch(FAST, FAST_COLUMNS, rows)])
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
    (tmp_path / "samples").rmdir()
    (tmp_path / "samples").write_text("no folder can be made here")
    for _ in range(6):
        writer.flush()
    assert read_samples(tmp_path).num_rows == 0 and 250 < writer.pending_rows < 750
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
    expected = sum(segments.count(two) for two in batches)
    writer = SegmentWriter(tmp_path, lambda: batches.pop(0), EventLog(tmp_path))
    (tmp_path / "samples").rmdir()
    (tmp_path / "samples").write_text("no folder can be made here")
    writer.flush()
    (tmp_path / "samples").unlink()
    writer.flush(), writer.flush()
    assert compact(tmp_path, tmp_path)["rows"] == expected
    assert [event["kind"] for event in read_events(tmp_path)] == ["disk_failed", "disk_recovered"]


def test_a_long_measurement_is_compacted_piece_by_piece(tmp_path, monkeypatch):
    batches = [batch(at, at + 4) for at in range(0, 40, 4)]
    writer = SegmentWriter(tmp_path, lambda: batches.pop(0), EventLog(tmp_path))
    for _ in range(10):
        writer.flush()
    expected = samples.sort(read_samples(tmp_path))
    monkeypatch.setattr(samples, "CHUNK_ROWS", 500)
    found = compact(tmp_path, tmp_path)
    file = pq.ParquetFile(tmp_path / "samples.parquet")
    assert file.num_row_groups > 3 and not (tmp_path / "samples").exists()
    assert samples.sort(read_samples(tmp_path)).equals(expected)
    assert found == {"rows": expected.num_rows, "call_us_median": 20.0, "late_us_median": 50.0}


@pytest.mark.parametrize("devices", [2, 8])
def test_thinning_leaves_every_device_half_of_its_fast_readings(devices):
    # As the lanes keep them: one reading of each device after the other.
    rows = [
        (device, t_ns, t_ns, t_ns, (0, 1, 1)) for t_ns in range(0, 100_000, 1000) for device in range(devices)
    ]
    seldom = [(device, t_ns, t_ns, t_ns, (50,)) for t_ns in (0, 1000) for device in range(devices)]
    both = [Batch(FAST, FAST_COLUMNS, rows), Batch(SLOW, SLOW_COLUMNS, seldom)]
    thinned = segments.thin(segments.decode(segments.encode(both)))
    found = [(row[0], lane, row[1] // 1000) for lane, _, kept in thinned for row in kept]
    for device in range(devices):
        assert [t for d, lane, t in found if (d, lane) == (device, FAST)] == list(range(0, 100, 2))
        assert [t for d, lane, t in found if (d, lane) == (device, SLOW)] == [0, 1]


@pytest.mark.fault("samples folder that may no longer be written", "`disk_failed`; samples wait in memory")
def test_a_folder_that_refuses_the_writer_does_not_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "FLUSH_S", 0.05)
    writer = SegmentWriter(tmp_path, lambda: batch(0, 4), EventLog(tmp_path))
    # Where even the superuser has no permission to make a file.
    (tmp_path / "samples").rmdir()
    (tmp_path / "samples").symlink_to("/sys/kernel")
    writer.start()
    until = time.monotonic() + 20
    while not writer.failing and time.monotonic() < until:
        time.sleep(0.01)
    (tmp_path / "samples").unlink()
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
    torn = [[Batch(FAST, FAST_COLUMNS, [(0, 1)])], batch(0, 4)]
    writer = SegmentWriter(tmp_path, lambda: torn.pop(0), EventLog(tmp_path))
    writer.flush()
    writer.flush()
    assert [event["kind"] for event in read_events(tmp_path)] == ["flush_failed"]
    assert read_samples(tmp_path).num_rows == 204


MEASURE = """
import sys
from pathlib import Path
from jouleline.measure.raw.events import EventLog
from jouleline.measure.raw.proc import peak_rss_mib
from jouleline.measure.raw.segments import Batch
from jouleline.measure.sidecar.compaction import compact
from jouleline.measure.sidecar.process import Sidecar
from jouleline.measure.sidecar.writer import SegmentWriter

def rows(part):
    for number in range(200 * part, 200 * part + 200):
        for gpu in range(8):
            t_ns = number * 20_000_000 + gpu * 30_000
            yield gpu, t_ns, t_ns + 25_000, t_ns - 60_000, (0, number * 6000 + gpu, 300_000 + number % 977)
folder, names = Path(sys.argv[1]), ("status", "energy_mj", "power_mw")
writer = SegmentWriter(folder, lambda: [Batch(0, names, list(rows(writer.number)))], EventLog(folder))
for _ in range(120):
    writer.flush()
found = compact(folder, folder, b"")
print(found["rows"], peak_rss_mib(), found["compaction_peak_rss_mib"], *{"numpy", "pyarrow"} & {*sys.modules})
"""


def test_eight_minutes_of_eight_gpus_stay_small(tmp_path):
    """In a process of its own, as the sidecar, and without the libraries of tables while it measures.

    How much of those the compaction maps depends on the page cache (71 and 104 MiB were seen).
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True
    )
    rows, most_mib, compaction_mib, *libraries = done.stdout.split()
    assert int(rows) == 120 * 1600 and not libraries
    assert float(most_mib) < 60 and float(compaction_mib) < 150


def spoilt() -> dict[str, bytes]:
    """Segments as a disk may give them back."""
    whole = segments.encode(batch(0, 4))
    return {
        "cut": whole[:-9],
        "header": b"PAR1" + whole,
        "lines": gzip.compress(b"7\n"),
        "no JSON": gzip.compress(b"[0, \n"),
    }


@pytest.mark.parametrize("kind", spoilt())
def test_a_segment_that_is_not_whole_is_a_value_error(tmp_path, kind):
    path = segments.path_of(tmp_path, 0)
    path.parent.mkdir()
    path.write_bytes(spoilt()[kind])
    with pytest.raises(ValueError, match=str(path)):
        segments.read(path)


def test_a_byte_that_is_wrong_is_a_value_error_or_says_nothing_else():
    whole = segments.encode(batch(0, 1))
    right, refused = list(segments.decode(whole)), 0
    for at in range(len(whole)):
        wrong = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        try:
            assert list(segments.decode(wrong)) == right  # of its header not all is data
        except ValueError:
            refused += 1
    assert refused > 0.9 * len(whole)


def test_a_compaction_that_fails_says_why_and_leaves_the_segments(tmp_path):
    writer = SegmentWriter(tmp_path, lambda: batch(0, 4), EventLog(tmp_path))
    writer.flush()
    with pytest.raises(OSError, match="cannot write"):
        compaction.compact(tmp_path, tmp_path / "samples" / "part-000000.json.gz", b"")
    writer.flush()
    torn = segments.path_of(tmp_path, 1)
    torn.write_bytes(torn.read_bytes()[:-9])
    with pytest.raises(OSError, match=f"{torn}: no whole segment"):
        compaction.compact(tmp_path, tmp_path, b"")
    torn.unlink()
    assert read_samples(tmp_path).num_rows == 204


def test_a_compaction_that_is_killed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "compact", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(OSError, match="ended with -9"):
        compaction.compact(tmp_path, tmp_path, b"")
