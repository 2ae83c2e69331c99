"""How far a campaign is: every state of a row, on one machine and on Slurm. Nothing is written."""

import base64
import json
import os
import stat
import time
from pathlib import Path

import pytest
from jouleline import provenance, status
from jouleline.campaign import config
from jouleline.campaign.protocol import complete_protocol
from jouleline.commands.main import main
from jouleline.measure.raw import markers
from jouleline.schemas import write_table
from jouleline.schemas.energy import REGIONS
from paths import ROOT

IDS = [f"bert-{n}-r1" for n in range(7)]


@pytest.fixture
def campaign(tmp_path):
    """Three rows done, one of them out of memory; one failed, one running, one left half-done, one not begun."""
    folder = tmp_path / "results" / "mine"
    for n, (state, wall_s) in enumerate((("ok", 10.0), ("ok", 20.0), ("oom", 6.0))):
        _write(
            folder / "runs" / IDS[n] / "run.json",
            {"schema": 1, "status": state, "wall_s": wall_s, "nodes": []},
        )
    _write(
        folder / "runs" / IDS[3] / "run.failed.json",
        {"reason": "the disk is full; free some room", "status": "failed"},
    )
    (folder / "logs/measure_run").mkdir(parents=True)
    (folder / "logs/measure_run" / f"{IDS[3]}.log").write_text("begin\nOSError: no space left\n\n")
    for n, age_s in ((4, 0), (5, 3600)):
        marks = folder / "runs" / IDS[n] / "raw/node-0/markers"
        file = markers.MarkerFile(str(marks), 0)
        file.write(markers.START, 1, 1, 0, b"window")
        for number in range(4):
            file.write(markers.STEP, 2, number, 1)
        for path in (marks / "rank-0.bin", marks, marks.parent, marks.parent.parent):
            os.utime(path, (time.time() - age_s,) * 2)
    _write(folder / "grid.json", {"runs": [{"run_id": run_id} for run_id in IDS]})
    total = {"region": "window", "ordinal": 0, "energy_source": "rapl", "verdict": "valid", "reasons": ""}
    rows = [total | {"run_id": IDS[0], "energy_j": 1500.0}, total | {"run_id": IDS[1], "energy_j": None}]
    write_table(REGIONS, rows, folder / "energy/shard-0.parquet")
    return tmp_path / "results"


def _write(path: Path, document: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1))


def test_every_row_is_in_one_state(campaign):
    found = status.read(campaign, "mine")
    assert found.done == {"ok": 2, "oom": 1}
    assert found.running == [(IDS[4], "step 4")] and found.stopped == [IDS[5]]
    assert found.waiting == 2, "the one that was left, and the one that nobody began"
    ((run_id, why),) = found.failed
    assert run_id == IDS[3] and why.startswith(
        "the disk is full; free some room; log: OSError: no space left ("
    )
    assert found.eta_s == pytest.approx(12.0 * 3)
    assert (found.energy_j, found.measured) == (1500.0, 1), "an energy that is not known is not 0"


def test_the_command_says_it_and_writes_nothing(campaign, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in campaign.rglob("*"))
    assert main(["status", "mine", "--results", str(campaign)]) == 0
    out = capsys.readouterr().out
    assert "3 of 7 rows are measured (2 ok, 1 oom), 1 running, 1 failed, 2 not begun" in out
    assert "1.5 kJ in the windows of 1 rows" in out and "about 36 s left" in out
    assert sorted((path, path.stat().st_mtime_ns) for path in campaign.rglob("*")) == before


def test_a_campaign_that_is_not_there_is_one_line_with_those_that_are(campaign, capsys):
    assert main(["status", "yours", "--results", str(campaign)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "there is no campaign 'yours'" in error and "known are mine" in error


def test_on_slurm_a_row_waits_for_a_reason_until_a_time(campaign, tmp_path, monkeypatch):
    """A squeue that answers as Slurm's does: one row runs on another machine, one waits, one is of another folder."""
    monkeypatch.chdir(tmp_path)
    lines = [
        f"RUNNING|None|2030-01-01T00:00:00|{tmp_path}|{IDS[5]}.abc",
        f"PENDING|Resources|2030-01-02T10:00:00|{tmp_path}|{IDS[6]}.abc",
        f"PENDING|Priority|N/A|/elsewhere|{IDS[3]}.abc",
    ]
    fake = tmp_path / "bin" / "squeue"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    found = status.read(campaign, "mine")
    assert [run_id for run_id, _ in found.running] == [IDS[4], IDS[5]]
    assert found.queued == [(IDS[6], "Resources, expected 2030-01-02T10:00:00")]
    assert [run_id for run_id, _ in found.failed] == [IDS[3]]


def test_following_ends_when_nothing_is_left(campaign, capsys):
    for run_id in IDS[3:]:
        _write(campaign / "mine/runs" / run_id / "run.json", {"status": "ok", "wall_s": 1.0})
    os.rename(campaign / "mine/runs" / IDS[4] / "raw", campaign / "gone")
    assert main(["status", "mine", "--results", str(campaign), "--follow"]) == 0
    assert "7 of 7 rows are measured" in capsys.readouterr().out


PROTOCOL = complete_protocol({"device": "cpu"})
TODAY = status.Today("c0de", PROTOCOL, '{"device":"cpu"}')


def test_rows_that_other_code_or_settings_measured_are_to_be_measured_again(campaign, tmp_path, monkeypatch):
    """As Snakemake does, unless --touch accepted them: it then records today's parameters of their outputs."""
    monkeypatch.chdir(tmp_path)
    of_today = {"code_digest": "c0de", "protocol": PROTOCOL}
    others = {IDS[0]: of_today, IDS[1]: of_today | {"code_digest": "01d"}}
    others[IDS[2]] = of_today | {"protocol": PROTOCOL | {"window_s": 99.0}}
    for run_id, changes in others.items():
        record = json.loads((campaign / "mine/runs" / run_id / "run.json").read_text())
        head = {"schema": 1, "run_id": run_id, "protocol": changes["protocol"]}
        _write(campaign / "mine/runs" / run_id / "run.json", head | changes | record)
    found = status.read(Path("results"), "mine", TODAY)
    assert found.done == {"ok": 1} and found.again == IDS[1:3] and found.waiting == 2
    text = "\n".join(status.lines(found))
    assert "1 of 7 rows are measured" in text and "2 to measure again, by other code or settings" in text
    assert found.eta_s == pytest.approx(12.0 * 5), "they take their time once more"
    assert status.read(Path("results"), "mine").done == {"ok": 2, "oom": 1}, "nobody says what is measured by"
    path = f"results/mine/runs/{IDS[1]}/run.json"
    noted = base64.urlsafe_b64encode(path.encode()).decode()
    _write(tmp_path / ".snakemake/metadata" / noted, {"params": ["'c0de'", repr(TODAY.protocol_key)]})
    assert status.read(Path("results"), "mine", TODAY).again == [IDS[2]]


def test_the_command_knows_by_what_runs_are_measured_today(campaign, capsys):
    """The digest is that of the rules, so a run of the demonstration by today's code is done."""
    assert main(["status", "mine", "--results", str(campaign)]) == 0
    assert "measure again" not in capsys.readouterr().out, "no file of the campaign, so nothing is known"
    code, demo = provenance.measuring_digest(ROOT), config.load({"campaign": "demo"}, ROOT)
    for n, digest in enumerate((code, "01d")):
        record = {"protocol": demo.protocol, "code_digest": digest, "status": "ok", "wall_s": 1.0}
        _write(campaign / "demo/runs" / IDS[n] / "run.json", record)
    _write(campaign / "demo/grid.json", {"runs": [{"run_id": run_id} for run_id in IDS[:2]]})
    assert main(["status", "demo", "--results", str(campaign)]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 rows are measured (1 ok)" in out
    assert f"1 to measure again, by other code or settings than those of now ({IDS[1]}" in out
