"""Samples that go to a node's own scratch folder and are moved to --out at the end."""

import json
import shutil
import time

import pytest
from fake_nvml.driver import constant, square
from fake_nvml.session import Session, codes
from test_faults_process import close, refusal


@pytest.fixture
def start(node, tmp_path):
    """Starts a sidecar on one GPU under load, with a scratch folder; returns its session."""

    def begin(**options) -> Session:
        n = node()
        n.gpus[0].waves(constant(0, 90), square(n.now_s() + 0.5, 150, 550, 0.27))
        return Session(n, tmp_path / "out", "--scratch", str(tmp_path / "scratch"), **options)

    return begin


def test_the_samples_are_in_scratch_until_the_end(start, tmp_path):
    session = start()
    with session.region("window"):
        time.sleep(5)
    assert list(tmp_path.glob("scratch/*/samples/part-*"))
    assert not (tmp_path / "out" / "samples").exists()
    row = session.row(session.finish(), 0)
    close(row, session.true_energy_j(0))
    assert codes(row) == set()
    assert (tmp_path / "out" / "samples.parquet").exists() and not list((tmp_path / "scratch").iterdir())


@pytest.mark.fault(
    "sidecar killed while its samples are in scratch", "`sidecar_died`; they are read from scratch"
)
def test_a_killed_sidecars_samples_are_found_in_scratch(start):
    session = start()
    with session.region("window"):
        time.sleep(2)
    time.sleep(2.5)
    session.kill()
    row = session.row(session.rows(), 0)
    close(row, session.true_energy_j(0), 0.03)
    assert codes(row) == {"sidecar_died"}


@pytest.mark.fault("scratch full", "`disk_failed`; samples wait in memory and go to --out, nothing is lost")
def test_scratch_full_for_good(start, tmp_path):
    session = start(preload_os=True)
    state = session.node.state
    state.disk_full_under = str(tmp_path / "scratch").encode()
    state.disk_full_from_s, state.disk_full_to_s = session.node.now_s(), 1e12
    with session.region("window"):
        time.sleep(5)
    row = session.row(session.finish(), 0)
    close(row, session.true_energy_j(0))
    assert codes(row) == {"disk_failed"}


@pytest.mark.fault("scratch removed while measuring", "`edges_unbracketed` or `gap`: what was lost is missed")
def test_scratch_removed_while_measuring(start, tmp_path):
    session = start()
    with session.region("lost"):
        time.sleep(4.5)
    shutil.rmtree(tmp_path / "scratch")
    with session.region("kept"):
        time.sleep(2)
    # The next segment begins where the lost one ended, so the second region may have lost its beginning.
    rows = session.finish()
    lost = session.row(rows, 0, "lost")
    assert lost["verdict"] == "invalid" and lost["energy_j"] is None and "edges_unbracketed" in codes(lost)
    kept = session.row(rows, 0, "kept")
    if kept["energy_j"] is not None:
        close(kept, session.true_energy_j(0, "kept"), 0.02)
    events = (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    assert any(json.loads(line)["kind"] == "samples_lost" for line in events)


@pytest.mark.fault("scratch that cannot be written", "exit code 2 and one line")
def test_scratch_that_cannot_be_written(node, tmp_path):
    code, said = refusal(node(), tmp_path / "out", "--meter", "nvml", "--scratch", "/proc/jouleline")
    assert code == 2 and "/proc/jouleline" in said and "--scratch" in said


def test_another_jobs_files_in_scratch_are_left_alone(start, tmp_path):
    other = tmp_path / "scratch" / "samples" / "part-000000.json.gz"
    other.parent.mkdir(parents=True)
    other.write_text("another job's")
    session = start(idle_s=0)
    assert session.stop() == 0
    assert other.read_text() == "another job's"
