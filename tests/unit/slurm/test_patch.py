"""The answers to the plugin's faults, on the parts of it that they are put into."""

import asyncio
import logging
import re
import sys
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm.utils  # noqa: F401 - before its package is replaced by a made-up one
from jouleline.slurm import patch as slurm_compat
from snakemake_interface_common.exceptions import WorkflowError

LOGGER = logging.getLogger("test")


def test_nothing_is_patched_without_the_executor(monkeypatch):
    monkeypatch.delitem(sys.modules, slurm_compat.MODULE, raising=False)
    assert slurm_compat.apply() is False


def test_another_version_submits_nothing_and_says_which_it_takes(monkeypatch):
    class Executor:
        def __post_init__(self):
            pass

    monkeypatch.setitem(sys.modules, slurm_compat.MODULE, SimpleNamespace(Executor=Executor))
    monkeypatch.setattr(slurm_compat.importlib.metadata, "version", lambda name: "9.9.9")
    assert slurm_compat.apply() is False
    with pytest.raises(WorkflowError, match=r"9\.9\.9 is installed.*pip install .*==2\.8\.0"):
        Executor().__post_init__()


def test_the_lock_installs_the_version_that_the_answers_are_for():
    assert slurm_compat.importlib.metadata.version(slurm_compat.DISTRIBUTION) == slurm_compat.VERSION


class FakeExecutor:
    """The parts of the executor that are answered to, as they are in the plugin."""

    def __init__(self, interval_s=40):
        settings = SimpleNamespace(
            init_seconds_before_status_checks=interval_s, array_jobs=None, requeue=False
        )
        self.workflow = SimpleNamespace(executor_settings=settings)
        self.next_seconds_between_status_checks = interval_s
        self.wait, self._failed_nodes, self._submitted_job_clusters = True, set(), set()
        self.submitted, self.failures, self.refusals = [], [], []
        self.logger = LOGGER

    def __post_init__(self):
        pass

    def run_job(self, job):
        """As many submissions as there are words in `refusals` fail with them."""
        self.submitted.append(job)
        try:
            if self.refusals:
                said = f"SLURM sbatch failed. The error message was '{self.refusals.pop(0)}'."
                self._report_job_error_threadsafe(None, said)
        except Exception as problem:  # as in the plugin
            self._report_job_error_threadsafe(None, f"exception: {problem}")

    def _report_job_error_threadsafe(self, job_info, msg):
        self.failures.append(msg)

    report_job_submission = report_job_error = shutdown = cancel = __post_init__

    async def check_active_jobs(self, active_jobs):
        self.next_seconds_between_status_checks = min(self.next_seconds_between_status_checks + 10, 180)
        for job in active_jobs:
            yield job


@pytest.fixture
def plugin(monkeypatch):
    """The plugin's module with the answers in it."""
    module = SimpleNamespace(
        Executor=type("Executor", (FakeExecutor,), dict(FakeExecutor.__dict__)),
        validate_account=lambda account, logger: calls.append(account) or account,
        get_submit_command=lambda job, params, settings=None, **_: "sbatch --job-name " + params["run_uuid"],
    )
    calls = module.calls = []
    monkeypatch.setitem(sys.modules, slurm_compat.MODULE, module)
    assert slurm_compat.apply("results/x") and slurm_compat.apply("results/y")
    assert module.jouleline_watch.campaign == "results/y"
    return module


def test_quiet_checks_stay_at_most_three_intervals_apart(plugin):
    executor = plugin.Executor(interval_s=5)
    info = SimpleNamespace(external_jobid="1", job=row("a"))

    async def check_often():
        for _ in range(10):
            assert [job async for job in executor.check_active_jobs([info])]

    asyncio.run(check_often())
    assert executor.next_seconds_between_status_checks == 15


def test_the_last_wait_ends_with_the_workflow(plugin):
    executor = plugin.Executor(interval_s=60)

    async def end_soon():
        asyncio.get_running_loop().call_later(0.1, setattr, executor, "wait", False)
        await asyncio.wait_for(executor.sleep(), 10)

    asyncio.run(end_soon())


def test_an_account_is_checked_once_and_never_guessed(plugin):
    assert {plugin.validate_account("proj42", LOGGER) for _ in range(300)} == {"proj42"}
    assert plugin.calls == ["proj42"] and plugin.get_account(LOGGER) is None


def test_the_plugin_asks_accounting_nothing_by_itself(plugin):
    assert [plugin.is_query_tool_available(tool) for tool in ("sacct", "squeue")] == [False, True]


def row(run: str, group: bool = False, log=(), **resources):
    job = SimpleNamespace(name="measure_run", wildcards=[run], shellcmd=f"measure {run}", attempt=1, log=log)
    job.is_group, job.groupid, job.jobs, job.resources = lambda: group, "tables", [job], resources
    return job


LIMITS = [
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: AssocMaxSubmitJobLimit",
    "sbatch: error: AssocGrpSubmitJobsLimit",
    "sbatch: error: QOSMaxSubmitJobPerAccountLimit",
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
]


@pytest.fixture
def submitting(plugin, client, tmp_path, monkeypatch):
    """An executor whose submissions are tried again at once."""
    monkeypatch.setattr(slurm_compat, "LIMIT_POLL_S", 0)
    executor = plugin.Executor()
    executor.workflow.workdir_init = tmp_path
    client("squeue", f"77|RUNNING|0|{tmp_path}|x")
    return executor


@pytest.mark.parametrize("refusal", LIMITS)
def test_one_job_too_many_waits_for_room_and_costs_no_attempt(submitting, refusal, caplog):
    submitting.refusals = [refusal] * 3
    submitting.run_job(row("a"))
    assert len(submitting.submitted) == 4 and submitting.failures == []
    assert caplog.text.count("No more jobs may be submitted now") == 1 and "measure_run a" in caplog.text


@pytest.mark.parametrize("refusal", LIMITS)
def test_where_no_job_is_queued_that_would_make_room_it_fails_at_once(submitting, refusal, client):
    client("squeue")
    submitting.refusals = [refusal] * 3
    submitting.run_job(row("a"))
    assert len(submitting.submitted) == 1 and len(submitting.failures) == 1


@pytest.mark.parametrize("name", ["QOSMaxWallDurationPerJobLimit", "AssocMaxCpuPerJobLimit", "QOSMinGRES"])
def test_a_limit_of_size_or_time_is_not_waited_for(submitting, name):
    """Slurm says the same words behind it as behind a limit of submitted jobs."""
    submitting.refusals = [LIMITS[0].replace("QOSMaxSubmitJobPerUserLimit", name)] * 3
    submitting.run_job(row("a"))
    assert len(submitting.submitted) == 1 and name in submitting.failures[0]


def test_other_refusals_fail_at_once_and_the_end_ends_the_wait(submitting):
    submitting.refusals = ["sbatch: error: invalid partition specified: nowhere"]
    submitting.run_job(row("a"))
    assert "nowhere" in submitting.failures[0] and len(submitting.submitted) == 1
    submitting.jouleline_ends, submitting.refusals = True, LIMITS[:1] * 9
    submitting.run_job(row("b"))
    assert len(submitting.submitted) == 2 and len(submitting.failures) == 2


def test_the_log_of_the_run_before_goes_with_the_submission(submitting, tmp_path):
    log = tmp_path / "a.log"
    log.write_text("ok in 14.1 s")
    submitting.run_job(row("a", log=[str(log), str(tmp_path / "none.log")]))
    assert submitting.submitted and not log.exists()


def test_jobs_are_named_by_their_row_and_slurm_starts_one_of_a_name_at_a_time(plugin):
    def command(job, folder="/x", **settings):
        params = {"run_uuid": "uuid", "comment_str": "c", "workdir": folder}
        return plugin.get_submit_command(job, params, SimpleNamespace(**settings))

    assert re.fullmatch(
        r"sbatch --job-name L2-N1x1-r1\.\w{12} --dependency=singleton", command(row("L2-N1x1-r1"))
    )
    assert command(row("a")) != command(row("a"), "/y")  # another checkout is another name
    assert "singleton" not in command(row("a", group=True))
    assert "singleton" not in command(row("a", slurm_extra="--dependency=after:7"))
    assert command(row("a"), efficiency_report=True).startswith("sbatch --job-name uuid")


def test_folders_of_waiting_jobs_stay(plugin, tmp_path):
    (tmp_path / "rule_measure_run/a").mkdir(parents=True)
    plugin.delete_empty_dirs(tmp_path)
    assert (tmp_path / "rule_measure_run/a").is_dir()
