"""The status of jobs in the executor's words, from clients that say what real ones were seen to say."""

import asyncio
import logging
import sys
from types import SimpleNamespace

import pytest
from jouleline import slurm_compat
from jouleline.slurm_compat import Watch, leftovers, normalise

LOGGER = logging.getLogger("test")


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Make a Slurm client say something: client(name, text, exit status)."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name: str, *lines: str, code: int = 0) -> None:
        text = "\n".join(lines)
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        (tmp_path / name).chmod(0o755)

    return make


def states(watch: Watch, *ids: str) -> dict[str, str]:
    watch.ids = set(ids)
    return asyncio.run(watch.query("not used", LOGGER))[0]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+", "CANCELLED"),
        ("RUNNING", "RUNNING"),
        ("PREEMPTED", "FAILED"),
        ("LAUNCH_FAILED", "FAILED"),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("", ""),
    ],
)
def test_states_in_the_executors_words(state, word):
    assert normalise(state) == word


def test_a_preempted_job_that_slurm_requeues_is_left_alone():
    assert normalise("PREEMPTED", requeued=True) == "PREEMPTED"


def test_squeue_is_asked_and_only_the_active_jobs_count(client):
    client("squeue", "1|RUNNING", "2|TIMEOUT", "9|FAILED")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "TIMEOUT"}


def test_a_job_that_squeue_forgot_is_looked_up_in_accounting(client):
    client("squeue", "1|RUNNING")
    client("sacct", "2|CANCELLED by 0")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "CANCELLED"}


def test_a_job_that_nobody_knows_is_left_to_its_outputs_after_three_checks(client):
    client("squeue", "1|RUNNING")
    watch = Watch()
    assert [states(watch, "1", "2").get("2") for _ in range(3)] == [None, None, "UNKNOWN"]


def test_an_outage_keeps_the_jobs_and_is_told(client, caplog):
    client("squeue", "slurm_load_jobs error", code=1)
    client("sacct", code=1)
    assert states(Watch(), "1") == {}
    assert "Slurm has not answered" in caplog.text and "JOULELINE_SLURM_PATIENCE_S" in caplog.text


def test_an_outage_has_an_end(client, caplog, monkeypatch):
    client("squeue", code=1)
    monkeypatch.setattr(slurm_compat, "PATIENCE_S", 0)
    assert states(Watch(), "1", "2") == {"1": "ERROR", "2": "ERROR"}
    assert "Start snakemake again" in caplog.text


def test_accounting_stands_in_for_a_controller_that_is_down(client):
    client("squeue", code=1)
    client("sacct", "1|COMPLETED")
    assert states(Watch(), "1") == {"1": "COMPLETED"}


def test_leftovers_are_live_jobs_of_this_folder(client, tmp_path):
    client(
        "squeue",
        f"1|RUNNING|{tmp_path}|rule_measure_run_wildcards_a",
        f"2|COMPLETING|{tmp_path}|rule_measure_run_wildcards_b",
        "3|PENDING|/elsewhere|rule_measure_run_wildcards_c",
        f"4|PENDING|{tmp_path}|rule_x|y",
    )
    assert leftovers(tmp_path) == {"rule_measure_run_wildcards_a": ["1"], "rule_x|y": ["4"]}


def test_leftovers_are_none_where_slurm_does_not_answer(client, tmp_path):
    client("squeue", f"1|RUNNING|{tmp_path}|rule_a", code=1)
    assert leftovers(tmp_path) == {}


def test_nothing_is_patched_without_the_executor(monkeypatch):
    monkeypatch.delitem(sys.modules, slurm_compat.MODULE, raising=False)
    assert slurm_compat.apply() is False


def test_another_version_is_left_as_it_is_and_told(monkeypatch, capsys):
    plugin = SimpleNamespace()
    monkeypatch.setitem(sys.modules, slurm_compat.MODULE, plugin)
    monkeypatch.setattr(slurm_compat.importlib.metadata, "version", lambda name: "9.9.9")
    assert slurm_compat.apply() is False and not vars(plugin)
    assert "9.9.9" in capsys.readouterr().err


def test_the_lock_installs_the_version_that_the_answers_are_for():
    assert slurm_compat.importlib.metadata.version(slurm_compat.DISTRIBUTION) == slurm_compat.VERSION
