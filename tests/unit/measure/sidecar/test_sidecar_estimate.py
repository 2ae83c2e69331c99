"""The sidecar as a process on a machine with no meter: files, signals, merge, energy."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jouleline.energy.integrate import regions, runs_regions
from jouleline.energy.load import load_measurement, load_run
from jouleline.measure.raw.merge import merge_nodes
from jouleline.schemas import read_table
from jouleline.schemas.energy import REGIONS
from paths import SCRIPTS

LOAD = """
import time
from jouleline.measure import region, step
with region("run"):
    with region("window"):
        begin = time.monotonic()
        while time.monotonic() - begin < 1.0:
            sum(range(20000))
            step()
        took_s = time.monotonic() - begin
print(took_s)
"""


def start_sidecar(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "jouleline.measure.sidecar",
        "--out",
        str(folder),
        "--meter",
        "estimate",
    ]
    process = subprocess.Popen(
        [*command, "--root-pid", str(os.getpid()), *arguments], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 20
    while not (folder / "ready.json").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    return process


def run_load(folder: Path, rank: int = 0) -> float:
    """How long the window was (s): a busy machine may hold it up."""
    environment = os.environ | {"JOULELINE_MARKERS": str(folder / "markers"), "RANK": str(rank)}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A finished measurement of one second of work on one core."""
    folder = tmp_path_factory.mktemp("measured")
    process = start_sidecar(folder, "--idle-s", "0.6")
    assert json.loads((folder / "ready.json").read_text())["pid"] == process.pid
    took_s = run_load(folder)
    (folder / "stop").touch()
    assert process.wait(10) == 0
    (folder / "took_s").write_text(str(took_s))
    return folder


def total(rows: list[dict], region: str) -> dict:
    return next(row for row in rows if row["region"] == region and row["device_uuid"] is None)


def test_energy_is_the_declared_watts_times_the_cpu_time(measured):
    row = total(regions(load_measurement(measured)), "window")
    assert row["verdict"] == "valid" and row["reasons"] == ""
    assert row["energy_source"] == "estimate" and row["energy_gain_u_j"] is None
    took_s = float((measured / "took_s").read_text())
    assert row["time_s"] == pytest.approx(took_s, abs=0.005)
    # 5 W idle and at most 10 W for the one busy core; a shared machine may give the process far less.
    assert 5.5 * took_s < row["energy_j"] < 15.3 * took_s
    assert row["steps"] > 10
    assert row["idle_power_w"] == pytest.approx(5.0, abs=1.5)


def test_a_run_merged_from_nodes_gives_the_same_energy(measured, tmp_path):
    run_dir = tmp_path / "r1"
    nodes = merge_nodes([measured], run_dir)
    run = {"run_id": "r1", "nodes": [node | {"ranks": [{"rank": 0, "device_uuid": None}]} for node in nodes]}
    (run_dir / "run.json").write_text(json.dumps(run | {"training": {"world_size": 1}}))
    merged, direct = (
        total(regions(load(p)), "window") for load, p in ((load_run, run_dir), (load_measurement, measured))
    )
    assert merged["run_id"] == "r1"
    assert merged["energy_j"] == direct["energy_j"] and merged["verdict"] == "valid"


@pytest.mark.fault(
    "a node or a rank of the run that left nothing", "`node_missing`, `rank_missing`, no energy"
)
def test_a_rank_or_node_that_is_missing_makes_the_run_invalid(measured, tmp_path):
    run_dir = tmp_path / "r2"
    nodes = merge_nodes([measured, tmp_path / "nothing"], run_dir)
    run = {"run_id": "r2", "nodes": nodes, "training": {"world_size": 2}}
    (run_dir / "run.json").write_text(json.dumps(run))
    row = total(regions(load_run(run_dir)), "window")
    assert row["verdict"] == "invalid" and row["energy_j"] is None
    assert {"node_missing", "rank_missing"} <= set(row["reasons"].split(","))


@pytest.mark.fault("a run whose files are torn or missing", "`run_unreadable`; the other runs stand")
def test_an_unreadable_run_does_not_sink_the_others(measured, tmp_path):
    nodes = merge_nodes([measured], tmp_path / "good")
    run = {"run_id": "good", "nodes": nodes, "training": {"world_size": 1}}
    (tmp_path / "good" / "run.json").write_text(json.dumps(run))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"run_id": "to')
    rows = runs_regions(tmp_path, ["torn", "absent", "good"])
    assert [row["reasons"] for row in rows[:2]] == ["run_unreadable"] * 2
    assert all(row["verdict"] == "invalid" and row["energy_j"] is None for row in rows[:2])
    assert total(rows, "window")["verdict"] == "valid"
    # The rule's script gives the same as one table.
    script = SCRIPTS / "integrate_energy.py"
    given = [str(tmp_path / run_id / "run.json") for run_id in ("torn", "absent", "good")]
    command = [sys.executable, str(script), "--runs", *given, "--out", str(tmp_path / "energy.parquet")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_table(REGIONS, tmp_path / "energy.parquet") == rows


@pytest.mark.fault("samples file that is torn", "`samples_unreadable`, no energy")
def test_torn_samples(measured, tmp_path):
    folder = tmp_path / "torn"
    shutil.copytree(measured, folder)
    data = (folder / "samples.parquet").read_bytes()
    (folder / "samples.parquet").write_bytes(data[: len(data) // 2])
    row = total(regions(load_measurement(folder)), "window")
    assert row["energy_j"] is None and {"samples_unreadable", "device_missing"} <= set(
        row["reasons"].split(",")
    )


@pytest.mark.fault("no region marked", "`no_regions`, one invalid row")
def test_a_measurement_without_marks_says_so(measured, tmp_path):
    folder = tmp_path / "unmarked"
    shutil.copytree(measured, folder, ignore=shutil.ignore_patterns("rank-*.bin"))
    (row,) = regions(load_measurement(folder))
    assert (row["verdict"], row["reasons"], row["energy_j"]) == ("invalid", "no_regions", None)


@pytest.mark.fault("SIGTERM, SIGINT or SIGUSR1 to the sidecar", "it ends and its files are whole")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_it_with_all_files_whole(tmp_path, number):
    process = start_sidecar(tmp_path, "--idle-s", "0")
    time.sleep(0.2)
    process.send_signal(number)
    assert process.wait(10) == 0
    assert json.loads((tmp_path / "meta.json").read_text())["stopped_by"] == signal.Signals(number).name
    assert (tmp_path / "samples.parquet").exists() and not (tmp_path / "samples").exists()
