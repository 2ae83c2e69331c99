"""Answers to faults of snakemake-executor-plugin-slurm 2.8.0. They are for this version only, and go away with it.

The profile answers what a setting can answer (squeue as the status command, no requeueing, retries, no task counts).
Any of the other faults would hang a campaign or measure a row twice. They are answered here and in the modules beside.
Each item says what happens without the patch, and after "Patch:" what happens with it.

- `sacct` prints "CANCELLED by 1000", and the plugin waits for "CANCELLED" for ever. Patch: states are cut to their
  first word.
- The plugin waits for a preempted job that may not requeue, and for a state that it does not know. Patch: both count as
  failed.
- When every status query of a cycle fails, running jobs are forgotten and the workflow never ends. Patch: they are
  kept, and the user is told. They are given up only after PATIENCE_S without an answer.
- The plugin waits for a finished job that slurmctld has forgotten (MinJobAge) or has lost with its state. Patch:
  accounting is asked, and where it knows of no end the output files decide. The plugin itself asks sacct nothing,
  because it would wait for the answer however long that takes.
- Variables of the user (SQUEUE_PARTITION, SBATCH_GPUS) change what Slurm's tools do. Patch: they are removed.
- "None assigned" and lists of nodes get into --exclude after a node failure. Patch: only single nodes get there, as
  squeue names them.
- Ten seconds are added to the interval after every quiet check, up to three minutes, and a whole interval is slept at
  the end. Patch: the interval grows to at most three intervals, and none is slept at the end.
- A killed snakemake leaves jobs in the queue, and a timed-out sbatch may have submitted one. Such jobs are submitted
  again although they exist. Patch: the existing jobs are waited for. They are cancelled where the command would be
  another one today (other code, protocol or row). A mark in the comment of every job says what it makes, and by which
  command.
- Two jobs of one row could still meet in one folder. Patch: a job has the name of its row, and Slurm starts one job of
  a name at a time (singleton).
- A submission while slurmctld restarts fails the job. Patch: the submission waits. A submission over a limit of
  submitted jobs waits too, while jobs of this user are in the queue.
- A grouped job whose submission fails is never reported, and the workflow waits for it for ever. Patch: it is reported.
- Without sacct the plugin does not tell why a job failed. It shows no log of a job after an empty one, and nothing of a
  group. Patch: the user is told what Slurm wrote into the log (memory, time limit, node).
- For a job that never began, the log of the run before is shown. Patch: this log is removed when the row is submitted
  again.
- Any snakemake that ends removes the empty log folders of jobs that wait in the queue, and these jobs then fail. Patch:
  the folders stay.
- An account is checked with sacctmgr for every job, and guessed from old jobs where none is given. Patch: it is checked
  once, and never guessed.
- A site's default memory per CPU or `slurm_extra` replaces what a row asks for. Patch: the row's memory wins, and
  `--exclusive` stands beside the site's options.
- Job arrays give every row the resources of the first. Patch: they are refused.
- A job that a partition does not allow waits until somebody looks. Patch: it is refused before the first row.
"""

import asyncio
import functools
import importlib.metadata
import os
import re
import shutil
import sys
import time
from pathlib import Path

from jouleline.slurm import limits
from jouleline.slurm.ask import ask, clean
from jouleline.slurm.leftovers import adopt, digest, leftover_of, mark_of, name_of, parts_of, wildcards_of
from jouleline.slurm.status import PATIENCE, PATIENCE_S, Watch, never_began, patience_s, said_by_slurm

DISTRIBUTION = "snakemake-executor-plugin-slurm"
MODULE = "snakemake_executor_plugin_slurm"
VERSION = "2.8.0"


def apply(campaign: str = "") -> bool:
    """Patch the plugin where Snakemake has loaded it. True if that was done, now or before.

    `campaign` distinguishes the campaigns of one folder, for example by their results folder. Returns False without the
    plugin. Another version than VERSION is not changed and refuses to submit, because without the patches it may hang.
    """
    plugin = sys.modules.get(MODULE)
    if plugin is None:
        return False
    installed = importlib.metadata.version(DISTRIBUTION)
    if installed != VERSION:
        _refuse(plugin.Executor, installed)
        return False
    if not hasattr(plugin, "jouleline_watch"):
        plugin.jouleline_watch = Watch()
        plugin.query_job_status = plugin.jouleline_watch.query
        plugin.is_query_tool_available = lambda tool: tool != "sacct"
        plugin.validate_account = functools.lru_cache(plugin.validate_account)
        plugin.get_account = lambda logger: None
        plugin.delete_empty_dirs = lambda path: None
        _patch_status(plugin.Executor, plugin.jouleline_watch)
        _patch_submission(plugin)
        _patch_reports(plugin.Executor)
    plugin.jouleline_watch.campaign = campaign
    return True


def _refuse(executor: type, installed: str) -> None:
    def post_init(self, *args, **kwargs):
        from snakemake_interface_common.exceptions import WorkflowError

        raise WorkflowError(
            f"{DISTRIBUTION} {installed} is installed, and the answers to its faults are for {VERSION}; without "
            f"them a campaign may hang or measure a row twice: pip install {DISTRIBUTION}=={VERSION}"
        )

    executor.__post_init__ = post_init


def _patch_status(executor: type, watch: Watch) -> None:
    check_active_jobs, post_init = executor.check_active_jobs, executor.__post_init__

    def checked_post_init(self, *args, **kwargs):
        _require_slurm(self)
        removed = clean(os.environ)
        post_init(self, *args, **kwargs)
        if removed:
            self.logger.warning(
                f"Not passed on to Slurm's tools, whose answers or jobs they would change: {', '.join(removed)}."
            )
        watch.requeued = bool(self.workflow.executor_settings.requeue)

    async def check(self, active_jobs):
        # The first call comes from a thread that is started before __post_init__ has run.
        if active_jobs:
            watch.jobs = {info.external_jobid: name_of(info.job) for info in active_jobs}
            watch.clusters = ["--clusters=all"] if self._submitted_job_clusters else []
        else:
            watch.last_answer_s = time.monotonic()
        async for job in check_active_jobs(self, active_jobs):
            yield job
        if active_jobs:
            self._failed_nodes |= watch.failed_nodes
        interval_s = self.workflow.executor_settings.init_seconds_before_status_checks
        self.next_seconds_between_status_checks = min(self.next_seconds_between_status_checks, 3 * interval_s)

    async def sleep(self):
        end_s = time.monotonic() + (self.next_seconds_between_status_checks or 0)
        while self.wait and time.monotonic() < end_s:
            await asyncio.sleep(min(0.5, max(0, end_s - time.monotonic())))

    executor.__post_init__, executor.check_active_jobs, executor.sleep = checked_post_init, check, sleep


def _require_slurm(executor) -> None:
    """Refuse what could only fail later, or wait for ever."""
    from snakemake_interface_common.exceptions import WorkflowError

    if executor.workflow.executor_settings.array_jobs:
        raise WorkflowError("--slurm-array-jobs gives every row the resources of the first: leave it out")
    if patience_s() is None:
        raise WorkflowError(f"{PATIENCE}={os.environ[PATIENCE]} is no number of seconds above 0: correct it")
    missing = [name for name in ("sbatch", "squeue") if not shutil.which(name)]
    if missing:
        raise WorkflowError(
            f"{' and '.join(missing)} not found; load Slurm's module, or use --profile profiles/local"
        )
    dag = executor.workflow.dag
    submitted = (job for job in dag.needrun_jobs() if not executor.workflow.is_local(job.rule))
    jobs = dict.fromkeys(dag.get_job_group(job) or job for job in submitted)
    problems = limits.beyond(jobs, limits.partitions())
    if problems:
        raise WorkflowError("Slurm would never start:\n" + "\n".join(problems))


def _patch_submission(plugin) -> None:
    executor, get_submit_command, watch = plugin.Executor, plugin.get_submit_command, plugin.jouleline_watch
    run_job, shutdown, cancel = executor.run_job, executor.shutdown, executor.cancel

    def marked(job, params, settings=None, **kwargs):
        mark = mark_of(job, watch.campaign)
        params = {**params, "comment_str": f"{params['comment_str']}:{mark}"}
        # The plugin's efficiency report finds its jobs by the name that it gave them.
        if not getattr(settings, "efficiency_report", False):
            what = digest(str(params["workdir"]), mark.split(".")[0])
            row = re.sub(r"[^\w.-]", "_", wildcards_of(job) or job.name)
            params["run_uuid"] = f"{row}.{what}"
        return _as_the_row_asks(job, get_submit_command(job, params, settings, **kwargs))

    def submit(self, job):
        try:
            _wait_for_controller(self)
            leftover = leftover_of(self, job, mark_of(job, watch.campaign))
            if leftover:
                watch.users.add(leftover.user)
                return adopt(self, job, leftover)
            for log in (log for part in parts_of(job) for log in part.log):
                Path(log).unlink(missing_ok=True)
            _submit_within_limits(self, job, run_job)
        except Exception as problem:
            # run_job itself fails when it wants to report why a grouped job could not be submitted
            from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

            said = f"Job submission failed: {problem.__context__ or problem}\n"
            self._report_job_error_threadsafe(SubmittedJobInfo(job), said)

    def ending(end):
        def end_without_waiting(self):
            self.jouleline_ends = True
            end(self)

        return end_without_waiting

    plugin.get_submit_command = marked
    executor.run_job, executor.shutdown, executor.cancel = submit, ending(shutdown), ending(cancel)
    executor.jouleline_own, executor.jouleline_leftovers, executor.jouleline_ends = set(), None, False


def _as_the_row_asks(job, call: str) -> str:
    """An sbatch line in which no default of the site replaces what a row needs."""
    asked = job.resources.get
    if asked("mem_mb"):
        call = re.sub(r" --mem-per-cpu \S+", f" --mem {asked('mem_mb')}", call)
    call += " --exclusive" if asked("exclusive") else ""
    alone = not job.is_group() and "--dependency" not in (asked("slurm_extra") or "")
    return call + " --dependency=singleton" * alone


_NO_REASON = " Detailed failure reason unavailable (status command is not 'sacct')."
# Words of sbatch where a user, account or quality of service has all the jobs that it may have, or slurmctld has all
# that it can take.
_TOO_MANY = re.compile(r"\w*Submit\w*Limit|job submit limit|temporarily unable to accept job")
# Each limit by its name. The words in brackets also stand behind limits of size and time, where waiting makes no room.
_LIMIT = re.compile(r"\b(?:QOS|Assoc)\w+")
LIMIT_POLL_S = 10


def too_many(said: str) -> str | None:
    """The limit of submitted jobs that sbatch has met, in its words. None where it refuses for another reason."""
    found = _TOO_MANY.search(said)
    named = _LIMIT.findall(said)
    return found[0] if found and (not named or any("Submit" in name for name in named)) else None


class _TooMany(BaseException):
    """A submission met a limit of submitted jobs. This is no Exception, because the plugin would take one for a
    failure."""


def _patch_reports(executor: type) -> None:
    report_job_submission, report_job_error = executor.report_job_submission, executor.report_job_error
    report_threadsafe = executor._report_job_error_threadsafe

    def report(self, job_info, *args, **kwargs):
        self.jouleline_own.add(job_info.external_jobid)
        report_job_submission(self, job_info, *args, **kwargs)

    def report_error(self, job_info, msg=None, aux_logs=(), **kwargs):
        msg = (msg or "").replace(_NO_REASON, "") + said_by_slurm(aux_logs)
        if job_info.external_jobid:
            msg += never_began(job_info.external_jobid, (job_info.aux or {}).get("slurm_logfile"))
        if job_info.job.is_group():
            self.logger.error(msg)
        report_job_error(self, job_info, msg, aux_logs=[*aux_logs], **kwargs)

    def report_unless_too_many(self, job_info, msg, *args, **kwargs):
        if "sbatch failed" in msg and too_many(msg) and _own_jobs():
            raise _TooMany(msg)
        report_threadsafe(self, job_info, msg, *args, **kwargs)

    executor.report_job_submission, executor.report_job_error = report, report_error
    executor._report_job_error_threadsafe = report_unless_too_many


def _submit_within_limits(executor, job, run_job) -> None:
    """Submit a job. Where it is one too many, submit it again as soon as the queue may have room."""
    told = False
    while not (told and executor.jouleline_ends):
        try:
            return run_job(executor, job)
        except _TooMany as problem:
            limit = too_many(str(problem))
        if not told:
            executor.logger.warning(
                f"No more jobs may be submitted now ({limit}); {name_of(job)} and what follows wait for room."
            )
            told = True
        time.sleep(LIMIT_POLL_S)
    raise RuntimeError("the workflow ends")


def _own_jobs() -> bool:
    return bool((ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i") or "").split())


def _wait_for_controller(executor) -> None:
    """Return when slurmctld answers, or after PATIENCE_S. Raises where the workflow ends meanwhile."""
    began = told = time.monotonic()
    while ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i") is None:
        if executor.jouleline_ends:
            raise RuntimeError("the workflow ends")
        silence_s = time.monotonic() - began
        if silence_s > PATIENCE_S:
            return
        if told == began or time.monotonic() - told > 30:
            told = time.monotonic()
            executor.logger.warning(f"Slurm has not answered for {silence_s:.0f} s; submissions wait.")
        time.sleep(1)
