"""A campaign in pieces: stopped, carried to a fresh checkout, continued, kept as data, and rebuilt from it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jouleline.errors import UserError
from jouleline.reference import state
from jouleline.reference.data import pack

from tests.workflow.checkout import ROOT, Checkout

CAMPAIGN = {
    "campaign": "pieces",
    "node": {"gpus": 1, "exclusive": False},
    "protocol": {
        **{"device": "cpu", "meter": "estimate", "window_s": 0.4, "window_steps": 2, "warmup_steps": 2},
        **{"warmup_max_steps": 4, "idle_s": 0.2, "eval_batches": 1, "calibration_s": 3},
    },
    "grid": {
        "defaults": {"vocab_size": 512, "replicates": 2},
        "blocks": [
            {
                "axes": {"layers": [1, 2, 3, 4]},
                "set": {"hidden": 64, "heads": 2, "intermediate": 128, "seq_len": 32, "micro_batch": 4},
            }
        ],
    },
    "analysis": {"models": ["roofline", "constant"], "splits": ["H1"], "shards": 1},
}
RUNS = 8


def checkout_of(folder: Path) -> Checkout:
    checkout = Checkout(folder, CAMPAIGN)
    shutil.copy(checkout.root / "campaign.yaml", checkout.root / "config/campaigns/pieces.yaml")
    return checkout


def measuring(checkout: Checkout, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "scripts/measure_reference.py", "--campaign", "pieces", "--overlap", "2"]
    return subprocess.Popen(
        [*command, "--check-minutes", "0", *arguments],
        cwd=checkout.root,
        env=os.environ | {"PYTHONPATH": "workflow", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(root: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in root.glob("results/pieces/runs/*/run.json")}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """(runs of the first piece, checkout of the second piece, folder of its state). A signal stopped it in between."""
    folder = tmp_path_factory.mktemp("pieces")
    first = checkout_of(folder / "first")
    process = measuring(first, "--minutes", "10", "--to", str(folder / "state"))
    deadline = time.monotonic() + 300
    while not finished(first.root) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "packed into" in output, output
    done = finished(first.root)
    assert 1 <= len(done) < RUNS, output
    # Whole runs only.
    assert {path.name for path in first.root.glob("results/pieces/runs/*/*")} == {
        *("run.json", "samples.parquet", "markers.parquet")
    }
    shutil.rmtree(first.root)
    second = checkout_of(folder / "second")
    process = measuring(
        second, "--minutes", "15", "--from", str(folder / "state"), "--to", str(folder / "state2")
    )
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0 and f"{RUNS} of {RUNS} runs" in output, output
    return done, second, folder / "state2"


def test_what_was_measured_before_is_not_measured_again(pieces):
    before, second, _ = pieces
    after = finished(second.root)
    assert len(after) == RUNS and before.items() <= after.items()


def test_every_row_is_measured_once_before_any_is_measured_again(pieces):
    records = [json.loads(text) for text in finished(pieces[1].root).values()]
    started = sorted((record["started_utc"], record["row"]["replicate"]) for record in records)
    # Runs start in pairs, so the last of a block and the first of the next may change places.
    assert [replicate for _, replicate in started[:3]] == [1, 1, 1]
    assert [replicate for _, replicate in started[-3:]] == [2, 2, 2]
    assert all(record["training"]["startup_s"]["device_wait"] >= 0 for record in records)


def test_the_pieces_are_small_and_a_wrong_one_is_refused(pieces, tmp_path):
    _, second, _ = pieces
    files = state.pack(second.root, "results/pieces", "pieces", tmp_path / "split", piece_mib=0.05)
    assert len(files) > 2 and all(path.stat().st_size <= 0.05 * 2**20 for path in files)
    assert state.unpack(tmp_path, "pieces", tmp_path / "split") > 3 * RUNS
    assert finished(tmp_path) == finished(second.root)
    files[0].write_bytes(b"something else")
    with pytest.raises(UserError, match="carry them again"):
        state.unpack(tmp_path, "pieces", tmp_path / "split")
    files[0].unlink()
    with pytest.raises(UserError, match="missing piece"):
        state.unpack(tmp_path, "pieces", tmp_path / "split")


@pytest.fixture(scope="module")
def rebuilt(pieces, tmp_path_factory):
    """A checkout that got only the packed data, with its report."""
    _, second, _ = pieces
    second.snakemake("--cores", "2", "--rerun-triggers", "mtime", "--config", "partial=true", "--", "tables")
    data = tmp_path_factory.mktemp("packed") / "pieces"
    assert pack(second.root / "results/pieces", data, raw_runs=2, limit_mb=20) < 1
    checkout = checkout_of(tmp_path_factory.mktemp("rebuilt") / "checkout")
    text = checkout.snakemake("--cores", "2", "--config", f"data={data}").stdout
    assert "steps (100%) done" in text and "measure_run" not in text
    return second, data, checkout


def test_the_report_is_built_from_the_data_alone(rebuilt):
    second, data, checkout = rebuilt
    tables = [
        pq.read_table(root / "results/pieces/tables/runs.parquet") for root in (second.root, checkout.root)
    ]
    assert tables[0].equals(tables[1]) and tables[0].num_rows == RUNS
    assert set(tables[1]["energy_source"].to_pylist()) == {"estimate"}  # as it was measured
    page = (checkout.root / "results/pieces/report.html").read_text()
    assert "Power traces" in page and "No run left samples" not in page
    assert len(list(data.glob("runs/*/samples.parquet"))) == 2


def test_data_that_were_changed_are_refused(rebuilt, tmp_path):
    _, data, checkout = rebuilt
    copy = tmp_path / "pieces"
    shutil.copytree(data, copy)
    idle = copy / "node/idle.json"
    idle.write_text(idle.read_text().replace("{", "{ ", 1))
    arguments = ["--data", str(copy), "--campaign", "pieces"]
    arguments += ["--out", str(tmp_path / "out/node/idle.json")]
    done = subprocess.run(
        [sys.executable, "scripts/import_data.py", *arguments],
        cwd=checkout.root, env=os.environ | {"PYTHONPATH": "workflow"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "is not the file that was packed" in done.stderr


def test_estimated_energies_are_never_kept_as_data(rebuilt, tmp_path):
    second, _, _ = rebuilt
    with pytest.raises(UserError, match="only measured ones"):
        pack(second.root / "results/pieces", tmp_path / "data" / "pieces", raw_runs=1, limit_mb=20)
    assert not (tmp_path / "data").exists()


def test_the_scores_of_the_gates_are_written_from_the_results(rebuilt, tmp_path):
    _, _, checkout = rebuilt
    command = [sys.executable, str(ROOT / "scripts/score_campaign.py"), "--results"]
    command += [str(checkout.root / "results/pieces"), "--out", str(tmp_path / "scores.md")]
    subprocess.run(command, check=True, cwd=checkout.root)
    text = (tmp_path / "scores.md").read_text()
    assert "estimated, not measured" in text and "| unseen architecture | H1 |" in text
    assert "unseen strategy" not in text  # one device cannot show it


def test_where_no_run_can_start_the_piece_ends_early_and_says_why(tmp_path, small_dataset):
    checkout = checkout_of(tmp_path / "no-gpu")
    checkout.give_dataset(small_dataset)
    checkout.edit("config/campaigns/pieces.yaml", "device: cpu", "device: cuda")
    # Of the preparation a run needs only its data set. The rest fails too where there is no GPU.
    output, _ = measuring(checkout, "--minutes", "10").communicate(timeout=600)
    assert "error: no results/pieces/node/calibration.json" in output, output
    assert "no run is finished" in output
    found = re.search(r"(\d+) runs failed here", output)
    assert found and 3 <= int(found[1]) < RUNS, output
    assert output.count("this node shows no GPU") == 3, output
    records = [
        json.loads(path.read_text()) for path in checkout.root.glob("results/pieces/runs/*/run.failed.json")
    ]
    assert {record["reason"] for record in records} == {"agent_failed"}
    # The next piece does not count these as its own failures, but counts those that fail again.
    output, _ = measuring(checkout, "--minutes", "10").communicate(timeout=600)
    assert int(re.search(r"(\d+) runs failed here", output)[1]) >= 3, output


def test_a_piece_that_is_killed_leaves_nothing_running(tmp_path, small_dataset):
    checkout = checkout_of(tmp_path / "killed")
    checkout.give_dataset(small_dataset)
    process = measuring(checkout, "--minutes", "10")
    deadline = time.monotonic() + 300
    while not list(checkout.root.glob("results/pieces/runs/*/raw")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(processes_in(checkout.root)) > 2
    process.kill()
    process.wait()
    while processes_in(checkout.root) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_in(checkout.root)


def processes_in(folder: Path) -> list[str]:
    """Processes whose working directory is `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd") == str(folder):
                found.append(path.name)
        except OSError:
            continue
    return found
