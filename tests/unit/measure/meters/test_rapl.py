"""RAPL from powercap files."""

import contextlib
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_nvml.driver import constant
from fake_nvml.session import Session
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.errors import UserError
from jouleline.measure.meters.base import Options
from jouleline.measure.meters.rapl import MOST_W, RaplMeter, Zone
from jouleline.measure.raw.events import read_events

RANGE_UJ = 262_143_328_850


def zone(root: Path, name: str, label: str, energy_uj: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return folder


@pytest.fixture
def powercap(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "powercap"
    zone(root, "intel-rapl:0", "package-0", 1000)
    zone(root, "intel-rapl:0:0", "core", 1000)
    zone(root, "intel-rapl:0:1", "dram", 1000)
    zone(root, "intel-rapl:1", "package-1", 1000)
    zone(root, "intel-rapl:2", "psys", 1000)
    zone(root, "intel-rapl-mmio:0", "package-0", 1000)
    monkeypatch.setenv("JOULELINE_POWERCAP", str(root))
    return root


def opened(powercap: Path) -> RaplMeter:
    """The meter of zones that count while it is opened."""
    with running(dict.fromkeys(powercap.glob("*/energy_uj"), 10.0)):
        return RaplMeter(Options(root_pid=1, period_s=0.02, node="n1"))


def test_packages_and_memory_count_once(powercap):
    meter = opened(powercap)
    labels = [device["name"] for device in meter.devices]
    assert labels == ["package-0 (intel-rapl:0)", "dram (intel-rapl:0:1)", "package-1 (intel-rapl:1)"]
    before_mj = [meter.read(index)[1] for index in range(3)]
    energy = powercap / "intel-rapl:1" / "energy_uj"
    energy.write_text(f"{int(energy.read_text()) + 5_000_000}\n")
    assert [meter.read(index)[1] - before_mj[index] for index in range(3)] == [0, 0, 5000]


# Each zone that does not count: the exit code of --meter rapl, and what is said.
STILL = [
    (("intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"), "package-0"),
    (("intel-rapl:0", "intel-rapl:1"), "package-0"),
    (("intel-rapl:1",), "package-1"),
]


@pytest.mark.fault("RAPL package that never counts", "exit code 3, `auto` passes over it")
@pytest.mark.parametrize(("still", "said"), STILL)
def test_a_package_that_never_counts_is_no_meter(powercap, tmp_path, still, said):
    counting = {
        powercap / name / "energy_uj": 20.0
        for name in ("intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1")
        if name not in still
    }
    with running(counting):
        named = wrapped(tmp_path / "named", "--meter", "rapl", "--", "true")
        auto = wrapped(tmp_path / "auto", "--", "true")
    assert named.returncode == 3 and "stands still" in named.stderr and said in named.stderr
    assert auto.returncode == 0 and auto.stderr.startswith("note: the meter is estimate")


@pytest.mark.fault("RAPL memory that never counts", "`zone_left_out`: the total is that of the packages")
def test_memory_that_never_counts_is_left_out_and_noted(powercap, tmp_path):
    counting = {powercap / name / "energy_uj": 20.0 for name in ("intel-rapl:0", "intel-rapl:1")}
    with running(counting):
        done = wrapped(tmp_path / "out", "--meter", "rapl", "--", "sleep", "1")
    assert done.returncode == 0
    rows = regions(load_measurement(tmp_path / "out"))
    total = next(row for row in rows if row["device_uuid"] is None)
    assert total["reasons"] == "zone_left_out"
    assert total["energy_j"] == pytest.approx(40.0 * total["time_s"], rel=0.05)


@pytest.mark.fault("RAPL counter that stops after the start", "`not_counting`, no energy")
def test_a_zone_that_stops_counting_is_invalid(powercap, tmp_path):
    with running({powercap / name / "energy_uj": 20.0 for name in ("intel-rapl:0:1", "intel-rapl:1")}):
        with running({powercap / "intel-rapl:0" / "energy_uj": 20.0}, stop=tmp_path / "out/ready.json"):
            done = wrapped(tmp_path / "out", "--meter", "rapl", "--", "sleep", "3.5")
        measured = load_measurement(tmp_path / "out")
    window = measured.nodes[0].ranks[0]
    window.start_us += 2e6
    total = next(row for row in regions(measured) if row["device_uuid"] is None)
    assert done.returncode == 0 and "not_counting" in total["reasons"] and total["energy_j"] is None


def test_a_counter_that_wraps_goes_on(powercap):
    folder = powercap / "intel-rapl:0"
    (folder / "energy_uj").write_text(f"{RANGE_UJ - 1_000_000}")
    counter = Zone(folder)
    (folder / "energy_uj").write_text("2000000")
    assert counter.read_mj() == 3000
    (folder / "energy_uj").write_text("4000000")
    assert counter.read_mj() == 5000


def test_a_counter_that_was_not_read_for_too_long_says_no_more(powercap, monkeypatch):
    folder = powercap / "intel-rapl:0"
    counter = Zone(folder)
    # Two wraps of 262 kJ take minutes, so the clock is set on instead.
    later_s = time.monotonic() + 1.01 * RANGE_UJ * 1e-6 / MOST_W
    monkeypatch.setattr("jouleline.measure.meters.rapl.time.monotonic", lambda: later_s)
    (folder / "energy_uj").write_text("2000000")
    assert counter.read_mj() is None and counter.read_mj() is None


@pytest.mark.fault("no permission for RAPL", "exit code 3; the line names the file and the remedy")
def test_no_permission_names_the_file_and_the_remedy(powercap, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    # The superuser of a container may read any file, so the refusal is the call's.
    monkeypatch.setattr("jouleline.measure.meters.rapl.os.open", refuse)
    with pytest.raises(UserError) as caught:
        RaplMeter(Options(root_pid=1, period_s=0.02, node="n1"))
    assert caught.value.exit_code == 3
    assert "intel-rapl:0/energy_uj" in str(caught.value) and "chmod" in str(caught.value)


def test_a_machine_without_zones_says_so(tmp_path):
    command = [
        sys.executable,
        "-m",
        "jouleline.commands.measure",
        "--out",
        str(tmp_path / "out"),
        "--meter",
        "rapl",
    ]
    environment = os.environ | {"JOULELINE_POWERCAP": str(tmp_path)}
    done = subprocess.run([*command, "--", "true"], env=environment, capture_output=True, text=True)
    assert (
        done.returncode == 3
        and done.stderr.startswith("error: no RAPL zones")
        and done.stderr.count("\n") == 1
    )


@pytest.mark.fault("RAPL tree that cannot be read", "exit code 3; the line names the file")
@pytest.mark.parametrize("content", [None, "", "many\n", "0\n", "-1\n"])
def test_a_zone_that_cannot_be_read_is_named(powercap, tmp_path, content):
    file = powercap / "intel-rapl:1" / "max_energy_range_uj"
    file.unlink() if content is None else file.write_text(content)
    done = wrapped(tmp_path / "out", "--meter", "rapl", "--", "true")
    assert done.returncode == 3 and "intel-rapl:1" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.fault("RAPL package whose name cannot be read", "exit code 3; the line names the file")
def test_a_package_without_a_name_is_not_passed_over(powercap, tmp_path):
    (powercap / "intel-rapl:1/name").unlink()
    done = wrapped(tmp_path / "out", "--meter", "rapl", "--", "true")
    assert done.returncode == 3 and "intel-rapl:1/name" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.fault("RAPL memory without a package", "exit code 3: its joules alone are no total")
def test_memory_alone_is_no_meter(powercap, tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:1"):
        shutil.rmtree(powercap / name)
    with running({powercap / "intel-rapl:0:1" / "energy_uj": 20.0}):
        done = wrapped(tmp_path / "out", "--meter", "rapl", "--", "true")
    assert done.returncode == 3 and "no RAPL zones that count" in done.stderr


@pytest.mark.fault("RAPL tree that cannot be read, `--meter auto`", "estimate, and one line that says why")
def test_auto_passes_over_zones_that_cannot_be_read(powercap, tmp_path):
    (powercap / "intel-rapl:1" / "energy_uj").write_text("many\n")
    done = wrapped(tmp_path / "out", "--", "true")
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "note: the meter is estimate, which is declared and not measured: no NVML: "
    )
    (event,) = [e for e in read_events(tmp_path / "out") if e["kind"] == "meters_passed_over"]
    assert event["meter"] == "estimate" and "intel-rapl:1" in event["reasons"][1]


def wrapped(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`jouleline measure` on a machine without NVML."""
    command = [sys.executable, "-m", "jouleline.commands.measure", "--out", str(out), "--idle-s", "0.3"]
    environment = os.environ | {"LD_LIBRARY_PATH": ""}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)


@contextlib.contextmanager
def running(files: dict[Path, float], reset_s: float = math.inf, stop: Path | None = None):
    """Counters that rise by so many watts while the body runs, as the kernel's would, and begin anew at `reset_s` or
    stand still from when the file `stop` is there."""
    ended, begin = threading.Event(), time.monotonic()

    def count():
        while not ended.wait(0.002):
            if stop and stop.exists():
                continue
            for file, power_w in files.items():
                since_s = time.monotonic() - begin
                since_s -= reset_s if since_s > reset_s else -50.0
                with open(file, "r+") as handle:
                    handle.write(f"{int(1000 + power_w * since_s * 1e6):<20d}\n")

    thread = threading.Thread(target=count)
    thread.start()
    time.sleep(0.05)  # the first write sets the counters on by 50 s of power
    yield
    ended.set()
    thread.join()


def test_a_command_is_measured_by_rapl(powercap, tmp_path):
    files = {
        powercap / "intel-rapl:0" / "energy_uj": 40.0,
        powercap / "intel-rapl:0:1" / "energy_uj": 5.0,
        powercap / "intel-rapl:0:0" / "energy_uj": 30.0,
        powercap / "intel-rapl:1" / "energy_uj": 15.0,
    }
    with running(files):
        done = wrapped(tmp_path / "out", "--", "sleep", "2")
    assert done.returncode == 0 and done.stderr.startswith("note: the meter is rapl: no NVML: ")
    rows = regions(load_measurement(tmp_path / "out"))
    row = next(row for row in rows if row["device_uuid"] is None)
    assert row["reasons"] == "" and row["energy_source"] == "rapl"
    assert row["energy_j"] == pytest.approx(60.0 * row["time_s"], rel=0.03)


@pytest.mark.fault("RAPL counter that is reset", "no energy from then on; the event `counter_reset`")
def test_a_counter_that_is_reset_is_not_taken_for_one_that_wraps(powercap, tmp_path):
    others = {powercap / name / "energy_uj": 5.0 for name in ("intel-rapl:0:1", "intel-rapl:1")}
    with running(others), running({powercap / "intel-rapl:0" / "energy_uj": 40.0}, reset_s=2.5):
        done = wrapped(tmp_path / "out", "--meter", "rapl", "--", "sleep", "4")
    assert done.returncode == 0
    measured = load_measurement(tmp_path / "out")
    total = next(row for row in regions(measured) if row["device_uuid"] is None)
    assert total["verdict"] == "invalid" and total["energy_j"] is None
    resets = [event["device"] for event in measured.nodes[0].events if event["kind"] == "counter_reset"]
    assert resets == [0]


def test_beside_gpus_it_is_the_hosts_energy(powercap, node, tmp_path):
    fake = node()
    fake.gpus[0].waves(constant(0, 300))
    with running({powercap / name / "energy_uj": 20.0 for name in ("intel-rapl:0", "intel-rapl:1")}):
        session = Session(fake, tmp_path / "out")
        with session.region("window"):
            time.sleep(2)
        rows = session.finish()
    total = session.row(rows)
    assert total["energy_j"] == pytest.approx(session.true_energy_j(0), rel=0.03)
    assert total["host_energy_j"] == pytest.approx(40.0 * total["time_s"], rel=0.1)
