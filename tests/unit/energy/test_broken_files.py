"""Files that are not as the sidecar left them: one line with what, where and the remedy, and no traceback."""

import json
import os
import subprocess
import sys

import made_up
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jouleline.commands.energy import main
from jouleline.energy.integrate import runs_regions
from jouleline.errors import UserError
from jouleline.files import write_json


@pytest.fixture
def folder(tmp_path):
    made_up.measurement(tmp_path)
    return tmp_path


def change_meta(folder, **values) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | values))


def add_event(folder, line: str) -> None:
    with open(folder / "events.jsonl", "a") as handle:
        handle.write(line + "\n")


def other_samples(folder) -> None:
    pq.write_table(pa.table({"a": [1]}), folder / "samples.parquet")


BROKEN = {
    "samples of another schema": (other_samples, "samples.parquet has no column node"),
    "event that is no object": (lambda f: add_event(f, "1"), "an event is no object"),
    "event without its details": (
        lambda f: add_event(f, '{"kind": "call_stuck"}'),
        "an event call_stuck has no t_us",
    ),
    "devices that are no list": (lambda f: change_meta(f, devices=5), "`devices` of the meta"),
    "device that is no object": (lambda f: change_meta(f, devices=[5]), "`devices` of the meta"),
    "device without its kind": (
        lambda f: change_meta(f, devices=[{"index": 0, "uuid": "GPU-0"}]),
        "a device of the meta has no kind",
    ),
}


def test_the_measurement_is_whole_before_it_is_broken(folder, capsys):
    assert main([str(folder)]) == 0 and " valid" in capsys.readouterr().out


@pytest.mark.fault("files of a measurement that no sidecar wrote", "exit code 2 and one line")
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_measurement_gets_one_line(folder, capsys, what):
    spoil, said = BROKEN[what]
    spoil(folder)
    assert main([str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {folder}")
    assert said in err and "measure it again" in err


@pytest.mark.fault("the event log is deleted", "`events_missing`, degraded")
def test_without_its_events_a_measurement_is_not_valid(folder, capsys):
    (folder / "events.jsonl").unlink()
    assert main([str(folder), "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert row["verdict"] == "degraded" and "events_missing" in row["reasons"].split(",")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_ends_it_quietly(folder, form):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "jouleline.commands.main", "energy", str(folder), *form]
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    # On a busy machine it takes so long that it says how far it is.
    assert (done.returncode, [said for said in done.stderr.splitlines() if " done, " not in said]) == (0, [])


@pytest.mark.fault(
    "a file of a measurement that cannot be read", "exit code 2: which and why, not that it is torn"
)
@pytest.mark.parametrize("name", ["meta.json", "samples.parquet", "events.jsonl", "markers/rank-0.bin"])
def test_a_file_that_is_refused_is_not_called_torn(tmp_path, capsys, name):
    """A folder in its place, which no user can read."""
    write_json(tmp_path / "meta.json", {"devices": []})
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir(parents=True)
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "is a directory" in said.lower() and name in said and said.count("\n") == 1
    assert "torn" not in said and "measure it again" not in said


def test_a_run_that_is_refused_is_not_taken_for_invalid(tmp_path):
    write_json(tmp_path / "run" / "run.json", {"nodes": []})
    (tmp_path / "run" / "samples.parquet").mkdir()
    with pytest.raises(UserError, match="samples.parquet"):
        runs_regions(tmp_path, ["run"])
