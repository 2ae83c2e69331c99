"""The status of jobs in the executor's words, from clients that say what real ones were seen to say."""

import asyncio
import logging
from datetime import datetime

import pytest
from jouleline.slurm import ask, status
from jouleline.slurm.leftovers import leftovers
from jouleline.slurm.status import Watch, never_began, normalise, said_by_slurm

LOGGER = logging.getLogger("test")


def states(watch: Watch, *ids: str) -> dict[str, str]:
    watch.jobs = {job: f"row {job}" for job in ids}
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
    client("squeue", "1|RUNNING|n1", "2|TIMEOUT|n2", "9|FAILED|n3")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "TIMEOUT"}


def test_a_job_that_squeue_forgot_is_looked_up_in_accounting(client):
    client("squeue", "1|RUNNING|n1")
    client("sacct", "2|CANCELLED by 0")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "CANCELLED"}


def test_a_job_that_nobody_knows_is_left_to_its_outputs_after_three_checks(client):
    client("squeue", "1|RUNNING|n1")
    watch = Watch()
    assert [states(watch, "1", "2").get("2") for _ in range(3)] == [None, None, "UNKNOWN"]


@pytest.mark.parametrize("limit", ["60", ""])
def test_a_job_that_accounting_has_as_running_is_never_called_forgotten(client, caplog, limit):
    """Its limit is an hour, or not known."""
    client("squeue", "1|RUNNING|n1")
    client("sacct", f"2|RUNNING|{datetime.now():%Y-%m-%dT%H:%M:%S}|{limit}")
    watch = Watch()
    assert [states(watch, "1", "2")["2"] for _ in range(5)] == ["RUNNING"] * 5
    assert caplog.text.count("squeue does not know row 2 (job 2)") == 1 and "forgotten" not in caplog.text


@pytest.mark.parametrize("fields", ["RUNNING|2026-01-02T03:04:05|60", "PENDING|Unknown|60"])
def test_a_job_that_slurmctld_lost_is_given_up_when_its_time_limit_has_passed(client, monkeypatch, fields):
    """A pending one has no start: after the patience of an outage."""
    client("squeue", "1|RUNNING|n1")
    client("sacct", f"2|{fields}")
    monkeypatch.setattr(status, "PATIENCE_S", 0)
    watch = Watch()
    assert [states(watch, "1", "2")["2"] == "UNKNOWN" for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("name", ["SQUEUE_PARTITION", "SQUEUE_ACCOUNT", "SQUEUE_NAMES"])
def test_a_users_environment_makes_no_job_forgotten(client, monkeypatch, name, tmp_path):
    monkeypatch.setenv(name, "other")
    (tmp_path / "squeue").write_text(f'#!/bin/sh\ntest -n "${name}" || echo "1|RUNNING|n1|None"\n')
    (tmp_path / "squeue").chmod(0o755)
    watch = Watch()
    assert [states(watch, "1") for _ in range(4)] == [{"1": "RUNNING"}] * 4


@pytest.mark.parametrize("reason", status.NEVER)
def test_a_job_that_will_never_start_is_told_once_with_the_remedy(client, caplog, reason):
    client("squeue", f"1|PENDING||{reason}", "2|PENDING||Priority", "3|RUNNING|n1|None")
    watch = Watch()
    for _ in range(3):
        assert states(watch, "1", "2", "3") == {"1": "PENDING", "2": "PENDING", "3": "RUNNING"}
    assert caplog.text.count("Slurm does not start row 1") == 1 and status.NEVER[reason] in caplog.text
    assert "row 2" not in caplog.text and "row 3" not in caplog.text


# Names of Slurm's sources: limits that keep a job for ever, and a word of what helps; None: it will start by itself.
REASONS = {
    "AssocGrpCPUMinutesLimit": "is spent",
    "AssocGrpGRESMinutes": "is spent",
    "QOSMaxCpuMinutesPerJobLimit": "is spent",
    "AssocGrpWallLimit": "is spent",
    "AssocGrpBillingMinutes": "is spent",
    "QOSMaxMemoryPerNode": "mem_mb=MB asks for less",
    "AssocMaxBBPerNode": "fewer devices",
    "QOSMaxBillingPerJob": "fewer devices",
    "QOSMinCpuNotSatisfied": "demands",
    "ReqNodeNotAvail, UnavailableNodes:n[1-3]": "maintenance",
    "launch failed requeued held": "scontrol release",
    "AssocGrpCPURunMinutesLimit": None,
    "QOSGrpMemRunMinutes": None,
    "AssocGrpNodeLimit": None,
    "QOSMaxJobsPerUserLimit": None,
    "QOSMaxGRESPerUser": None,
    "Resources": None,
    "Priority": None,
    "Dependency": None,
    "BeginTime": None,
    "Licenses": None,
    "": None,
}


@pytest.mark.parametrize(("reason", "said"), REASONS.items())
def test_every_limit_that_keeps_a_job_is_told(client, caplog, reason, said):
    client("squeue", f"1|PENDING||{reason}")
    assert states(Watch(), "1") == {"1": "PENDING"}
    assert (said is None) is (not caplog.text) and (said or "") in caplog.text


@pytest.mark.parametrize("state", ["REQUEUE_HOLD", "RESV_DEL_HOLD"])
def test_a_job_that_slurm_holds_is_told_and_waited_for(client, caplog, state):
    client("squeue", f"1|{state}||None")
    assert states(Watch(), "1") == {"1": state} and "`scontrol release` lets it go" in caplog.text


def test_a_job_without_a_log_folder_never_began(client, tmp_path):
    client("scontrol", "JobId=7 JobName=x JobState=FAILED Reason=RaisedSignal:53 ExitCode=0:53 StdOut=/x")
    assert "removed while the job waited" in never_began("7", tmp_path / "gone/7.log")
    assert "cannot write" in never_began("7", tmp_path / "7.log")
    client("scontrol", "JobId=7 JobState=FAILED ExitCode=1:0")
    assert never_began("7", tmp_path / "gone/7.log") == ""
    client("scontrol", code=1)
    assert never_began("7", None) == ""


def test_an_outage_keeps_the_jobs_and_is_told(client, caplog):
    client("squeue", "slurm_load_jobs error", code=1)
    client("sacct", code=1)
    assert states(Watch(), "1") == {}
    assert "Slurm has not answered" in caplog.text and "JOULELINE_SLURM_PATIENCE_S" in caplog.text


def test_an_outage_has_an_end(client, caplog, monkeypatch):
    client("squeue", code=1)
    monkeypatch.setattr(status, "PATIENCE_S", 0)
    assert states(Watch(), "1", "2") == {"1": "ERROR", "2": "ERROR"}
    assert "Start snakemake again" in caplog.text


def test_accounting_stands_in_for_a_controller_that_is_down(client, caplog):
    client("squeue", code=1)
    client("sacct", "1|COMPLETED")
    assert states(Watch(), "1") == {"1": "COMPLETED"} and not caplog.text


def test_a_controller_that_never_comes_back_is_given_up_although_accounting_answers(
    client, caplog, monkeypatch
):
    client("squeue", code=1)
    client("sacct", "1|RUNNING", "2|COMPLETED")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "COMPLETED"}
    assert "1 jobs stay as they are" in caplog.text
    monkeypatch.setattr(status, "PATIENCE_S", 0)
    assert states(Watch(), "1", "2") == {"1": "ERROR", "2": "COMPLETED"}


def test_a_query_that_hangs_is_no_answer(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(ask, "TIMEOUT_S", 0.2)
    for name in ("squeue", "sacct"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / name).chmod(0o755)
    assert states(Watch(), "1") == {} and leftovers(tmp_path) == {}
    assert "Slurm has not answered" in caplog.text


def test_only_a_single_node_is_said_to_have_failed(client):
    client("squeue", "1|NODE_FAIL|n1", "2|NODE_FAIL|n[2-3]", "3|NODE_FAIL|None assigned", "4|FAILED|n5")
    watch = Watch()
    states(watch, "1", "2", "3", "4")
    assert watch.failed_nodes == {"n1"}


def test_what_slurm_wrote_into_a_jobs_log_is_told(tmp_path):
    log = tmp_path / "7.log"
    limit = "StepId=7.0 exceeded memory limit (448198656 > 419430400), being killed"
    log.write_text(f"rule x:\nslurmstepd-n2: error: {limit}\nsrun: error: n2: task 0: Killed\n" * 2)
    told = said_by_slurm([None, str(tmp_path / "none.log"), str(log)])
    assert told.split("\n        ")[1:] == [limit, "n2: task 0: Killed\n"]
    assert said_by_slurm([None]) == "\n"


@pytest.mark.parametrize(
    ("text", "seconds"), [("x", None), ("nan", None), ("-1", None), ("inf", None), ("", 3600.0), ("60", 60.0)]
)
def test_a_patience_that_is_no_number_is_known_as_such(monkeypatch, text, seconds):
    """The executor refuses to begin with it; a campaign without Slurm is none the worse."""
    monkeypatch.setenv(status.PATIENCE, text)
    assert status.patience_s() == seconds
