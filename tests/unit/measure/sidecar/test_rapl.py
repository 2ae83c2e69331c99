"""RAPL from powercap files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jouleline.errors import UserError
from jouleline.measure.meters import Options
from jouleline.measure.meters.rapl import RaplMeter, Zone

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


def test_packages_and_memory_count_once(powercap):
    meter = RaplMeter(Options(root_pid=1, period_s=0.02, node="n1"))
    labels = [device["name"] for device in meter.devices]
    assert labels == ["package-0 (intel-rapl:0)", "dram (intel-rapl:0:1)", "package-1 (intel-rapl:1)"]
    (powercap / "intel-rapl:1" / "energy_uj").write_text("5001000\n")
    assert [meter.read(index)[1] for index in range(3)] == [0, 0, 5000]


def test_a_counter_that_wraps_goes_on(powercap):
    folder = powercap / "intel-rapl:0"
    (folder / "energy_uj").write_text(f"{RANGE_UJ - 1_000_000}")
    counter = Zone(folder)
    (folder / "energy_uj").write_text("2000000")
    assert counter.read_mj() == 3000
    (folder / "energy_uj").write_text("4000000")
    assert counter.read_mj() == 5000


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
        "jouleline.measure.cli_measure",
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
