import time
from pathlib import Path

import pytest
from jouleline.files import read_json, write_json
from jouleline.slurm import energy as slurm_energy

STARTED = "2026-01-02T03:04:05+00:00"
STARTED_S = 1767323045


def sacct(folder: Path, *lines: str, code: int = 0) -> None:
    text = "\n".join(lines)
    (folder / "sacct").write_text(
        f"#!/bin/sh\necho called >> {folder}/calls\ncat <<'END'\n{text}\nEND\nexit {code}\n"
    )
    (folder / "sacct").chmod(0o755)


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    write_json(tmp_path / "run/run.json", {"started_utc": STARTED, "environment": {"slurm": slurm}})
    return tmp_path / "run/run.json"


def recorded(run_file):
    return slurm_energy.recorded(run_file.parent, read_json(run_file))


def test_the_step_counts_and_not_the_job_or_the_batch(run_file, tmp_path):
    span = f"{STARTED_S - 5}|{STARTED_S + 90}"
    sacct(tmp_path, f"7|{span}|999", f"7.batch|{span}|888", f"7.0|{span}|14563")
    assert slurm_energy.record_all([run_file]) == 1
    assert recorded(run_file) == {"step": "7.0", "energy_j": 14563.0}


@pytest.mark.parametrize("energy", ["", "0", "18446744073709551614", "18446744073709551615"])
def test_unknown_is_null_and_never_zero(run_file, tmp_path, energy):
    sacct(tmp_path, f"7.0|{STARTED_S}|{STARTED_S + 9}|{energy}")
    assert slurm_energy.record_all([run_file]) == 0
    assert recorded(run_file) is None


def test_a_figure_is_asked_for_once_and_outlives_accounting(run_file, tmp_path):
    sacct(tmp_path, f"7.0|{STARTED_S}|{STARTED_S + 9}|50")
    slurm_energy.record_all([run_file])
    sacct(tmp_path, "", code=1)
    slurm_energy.record_all([run_file])
    assert recorded(run_file)["energy_j"] == 50.0
    assert (tmp_path / "calls").read_text().count("called") == 1


def test_another_job_with_the_same_id_is_not_taken(run_file, tmp_path):
    sacct(tmp_path, f"7.0|{STARTED_S - 9000}|{STARTED_S - 8000}|50")
    assert slurm_energy.record_all([run_file]) == 0


def test_the_figure_of_an_earlier_measurement_is_not_kept(run_file, tmp_path):
    write_json(run_file.parent / slurm_energy.FILE, {"step": "3.0", "energy_j": 1.0})
    assert recorded(run_file) is None


def test_accounting_that_hangs_costs_its_time_limit_once(run_file, tmp_path, monkeypatch):
    (tmp_path / "sacct").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setattr(slurm_energy, "QUERY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(slurm_energy, "JOBS_PER_QUERY", 1)
    began = time.monotonic()
    assert slurm_energy.query(["7.0", "8.0", "9.0"]) == {}
    assert slurm_energy.record_all([run_file]) == 0 and time.monotonic() - began < 5


@pytest.mark.parametrize(
    "said", ["", "sacct: error: Problem talking to the database", "7.0|x|y", "a|b|c|d|e"]
)
def test_what_is_no_figure_is_passed_over(run_file, tmp_path, said):
    sacct(tmp_path, said)
    assert slurm_energy.record_all([run_file]) == 0


def test_a_machine_without_sacct_has_no_figure(run_file):
    assert slurm_energy.record_all([run_file]) == 0 and recorded(run_file) is None


def test_a_torn_figure_counts_as_none(run_file, tmp_path):
    (run_file.parent / slurm_energy.FILE).write_text("{")
    assert recorded(run_file) is None
    sacct(tmp_path, f"7.0|{STARTED_S}|{STARTED_S + 9}|50")
    assert slurm_energy.record_all([run_file]) == 1 and recorded(run_file)["energy_j"] == 50.0


def test_nothing_is_asked_without_slurm(run_file, tmp_path):
    write_json(run_file, {"started_utc": STARTED, "environment": {"slurm": {}}})
    sacct(tmp_path, "never")
    assert slurm_energy.record_all([run_file]) == 0
    assert not (tmp_path / "calls").exists()
