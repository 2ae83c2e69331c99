"""What accounting says of finished runs, what is kept of it, and what is never taken for an answer."""

import time
from pathlib import Path

import pytest
from jouleline.files import read_json, write_json
from jouleline.slurm import accounting

STARTED = "2026-01-02T03:04:05+00:00"
STARTED_S = 1767323045
TIMES = f"{STARTED_S - 9}|{STARTED_S - 5}|{STARTED_S + 90}"


def sacct(folder: Path, *lines: str, code: int = 0) -> None:
    text = "\n".join(lines)
    (folder / "sacct").write_text(
        f"#!/bin/sh\necho called >> {folder}/calls\ncat <<'END'\n{text}\nEND\nexit {code}\n"
    )
    (folder / "sacct").chmod(0o755)


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make_run(tmp_path, "run", "7")


def make_run(folder: Path, name: str, job: str | None) -> Path:
    slurm = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0"} if job else {}
    write_json(folder / name / "run.json", {"started_utc": STARTED, "environment": {"slurm": slurm}})
    return folder / name / "run.json"


def asked(*run_files: Path) -> dict:
    """The answers that are kept when accounting was asked."""
    kept = run_files[0].parent.parent / "kept.json"
    assert accounting.record_all(run_files, kept) == len(read_json(kept))
    return read_json(kept)


def test_times_are_the_jobs_and_energy_is_the_steps(run_file, tmp_path):
    sacct(tmp_path, f"7|{TIMES}|999", f"7.batch|{TIMES}|888", f"7.0|{TIMES}|14563")
    assert asked(run_file) == {
        "run": {
            **{"step": "7.0", "submit_s": STARTED_S - 9, "start_s": STARTED_S - 5, "end_s": STARTED_S + 90},
            "energy_j": 14563.0,
        }
    }


@pytest.mark.parametrize("energy", ["", "0", "18446744073709551614", "18446744073709551615"])
def test_unknown_is_null_and_never_zero(run_file, tmp_path, energy):
    sacct(tmp_path, f"7|{TIMES}|{energy}", f"7.0|{TIMES}|{energy}")
    assert asked(run_file)["run"]["energy_j"] is None


def test_an_answer_is_asked_for_once_and_outlives_accounting(run_file, tmp_path):
    sacct(tmp_path, f"7|{TIMES}|", f"7.0|{TIMES}|50")
    first = asked(run_file)
    sacct(tmp_path, "", code=1)
    assert asked(run_file) == first
    assert (tmp_path / "calls").read_text().count("called") == 1


def test_a_part_that_is_missing_is_asked_for_and_the_rest_is_not_lost(run_file, tmp_path):
    sacct(tmp_path, f"7|{STARTED_S - 9}|{STARTED_S - 5}|Unknown|", f"7.0|{TIMES}|50")
    assert asked(run_file)["run"]["end_s"] is None
    sacct(tmp_path, f"7|{TIMES}|")  # steps are purged before their jobs
    assert asked(run_file)["run"] | {"step": ""} == {
        **{"step": "", "submit_s": STARTED_S - 9, "start_s": STARTED_S - 5, "end_s": STARTED_S + 90},
        "energy_j": 50.0,
    }


def test_another_run_more_does_not_ask_for_the_first_again(run_file, tmp_path):
    sacct(tmp_path, f"7|{TIMES}|", f"7.0|{TIMES}|50")
    asked(run_file)
    sacct(tmp_path, f"8|{TIMES}|", f"8.0|{TIMES}|60")
    answers = asked(run_file, make_run(tmp_path, "other", "8"))
    assert {name: answer["energy_j"] for name, answer in answers.items()} == {"run": 50.0, "other": 60.0}


def test_a_run_that_was_measured_again_loses_the_answer_of_its_old_job(run_file, tmp_path):
    sacct(tmp_path, f"7|{TIMES}|", f"7.0|{TIMES}|50")
    asked(run_file)
    sacct(tmp_path, "", code=1)
    assert asked(make_run(tmp_path, "run", "9")) == {}


@pytest.mark.parametrize("start", [STARTED_S - 9000, STARTED_S + 9000])
def test_another_job_with_the_same_id_is_not_taken(run_file, tmp_path, start):
    sacct(tmp_path, f"7|{start}|{start}|{start + 100}|50", f"7.0|{start}|{start}|{start + 100}|50")
    assert asked(run_file) == {}


def test_accounting_that_hangs_costs_its_time_limit_once(run_file, tmp_path, monkeypatch):
    (tmp_path / "sacct").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setattr(accounting, "QUERY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(accounting, "JOBS_PER_QUERY", 1)
    began = time.monotonic()
    assert accounting.query(["7.0", "8.0", "9.0"]) == {}
    assert asked(run_file) == {} and time.monotonic() - began < 55


@pytest.mark.parametrize(
    "said",
    ["", "sacct: error: Problem talking to the database", "7.0|x|y", "a|b|c|d|e", "7|Unknown|Unknown||"],
)
def test_what_is_no_answer_is_passed_over(run_file, tmp_path, said):
    sacct(tmp_path, said)
    assert asked(run_file) == {}


def test_a_machine_without_sacct_has_no_answer(run_file):
    assert asked(run_file) == {}


def test_a_torn_file_of_answers_counts_as_none(run_file, tmp_path):
    (tmp_path / "kept.json").write_text("{")
    sacct(tmp_path, f"7|{TIMES}|", f"7.0|{TIMES}|50")
    assert asked(run_file)["run"]["energy_j"] == 50.0


def test_nothing_is_asked_without_slurm(run_file, tmp_path):
    sacct(tmp_path, "never")
    assert asked(make_run(tmp_path, "run", None)) == {}
    assert not (tmp_path / "calls").exists()
