"""Answers to what snakemake-executor-plugin-slurm 2.8.0 gets wrong. For that version only; goes away with it.

The profile answers what a setting can answer (squeue as the status command, no requeueing, no job arrays). What is
left would hang a campaign or measure a row twice, and is answered here:

- `sacct` prints "CANCELLED by 1000", the plugin waits for "CANCELLED" for ever: states are cut to their first word.
- A preempted job that may not requeue, and a state the plugin does not know, are waited for: they count as failed.
- When every status query of a cycle fails, running jobs are forgotten and the workflow never ends: they are kept, the
  user is told, and only after PATIENCE_S without any answer are they given up.
- A finished job that slurmctld has forgotten (MinJobAge) is waited for: accounting is asked, and without it the output
  files decide.
- "None assigned" and lists of nodes land in --exclude after a node failure: only single node names do.
- Ten seconds are added to the interval after every quiet check, up to three minutes, and a whole interval is slept at
  the end: at most three intervals, and none at the end.
- Jobs that a killed snakemake left in the queue are submitted again beside themselves: the new one waits for them, or
  cancels them where the command would be another one today (other code, protocol or row).
- A submission while slurmctld restarts fails the job: it waits.
- An account is checked with sacctmgr for every job, and guessed from old jobs where none is given: once, and never.
- Job arrays give every row the resources of the first: refused.
"""

import asyncio
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

DISTRIBUTION = "snakemake-executor-plugin-slurm"
MODULE = "snakemake_executor_plugin_slurm"
VERSION = "2.8.0"
# What each submitted job runs, by its Slurm id, for the next snakemake; in the folder that Snakemake works in.
COMMANDS = Path(".snakemake/slurm_commands")
PATIENCE_S = float(os.environ.get("JOULELINE_SLURM_PATIENCE_S", 3600))
QUERY_TIMEOUT_S = 60
UNSEEN_LIMIT = 3
ENDED_BADLY = {"PREEMPTED", "REVOKED", "SPECIAL_EXIT", "LAUNCH_FAILED", "RECONFIG_FAIL"}
LIVE = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED"}
NODE_NAME = re.compile(r"[\w.-]+")


def apply() -> bool:
    """Patch the plugin where Snakemake has loaded it; True if that was done (now or before).

    Returns False without the plugin. Another version than VERSION is left as it is, with a warning.
    """
    plugin = sys.modules.get(MODULE)
    if plugin is None:
        return False
    installed = importlib.metadata.version(DISTRIBUTION)
    if installed != VERSION:
        print(
            f"warning: {DISTRIBUTION} {installed} runs without the answers to the faults of {VERSION}",
            file=sys.stderr,
        )
        return False
    if not hasattr(plugin, "jouleline_watch"):
        plugin.jouleline_watch = Watch()
        plugin.query_job_status = plugin.jouleline_watch.query
        plugin.validate_account = functools.lru_cache(plugin.validate_account)
        plugin.get_account = lambda logger: None
        _patch_status(plugin.Executor, plugin.jouleline_watch)
        _patch_submission(plugin.Executor)
    return True


def normalise(state: str, requeued: bool = False) -> str:
    """A state of squeue or sacct in the plugin's words. `requeued`: Slurm itself starts preempted jobs again."""
    word = state.split()[0].rstrip("+") if state.split() else ""
    if word in ENDED_BADLY and not (word == "PREEMPTED" and requeued):
        return "FAILED"
    return word


class Watch:
    """States of the active jobs, by job id: from squeue, and of those that it has forgotten from sacct."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.requeued = False
        self.clusters: list[str] = []
        self.last_answer_s = time.monotonic()
        self.unseen: Counter[str] = Counter()

    async def query(self, command: str, logger) -> tuple[dict[str, str], float]:
        """In the place of the plugin's query_job_status: (states, seconds), never None. The command is not used."""
        began = time.monotonic()
        queue = await _ask([*_SQUEUE, f"--user={os.getuid()}", "--states=all", *self.clusters], logger)
        states = {job: state for job, state in (queue or {}).items() if job in self.ids}
        accounting = await self._ask_accounting(self.ids - set(states), logger)
        states |= accounting or {}
        if queue is None and accounting is None:
            states |= self._without_answer(logger)
        else:
            self.last_answer_s = time.monotonic()
        if queue is not None:
            states |= self._forgotten(self.ids - set(states), logger)
        return {
            job: self._normalise(job, state, logger) for job, state in states.items()
        }, time.monotonic() - began

    async def _ask_accounting(self, ids: set[str], logger) -> dict[str, str] | None:
        if not ids or not shutil.which("sacct"):
            return None
        found = await _ask([*_SACCT, f"--jobs={','.join(sorted(ids))}", *self.clusters], logger)
        return None if found is None else {job: state for job, state in found.items() if job in ids}

    def _without_answer(self, logger) -> dict[str, str]:
        silence_s = time.monotonic() - self.last_answer_s
        if silence_s < PATIENCE_S:
            logger.warning(
                f"Slurm has not answered for {silence_s:.0f} s (squeue and sacct fail); {len(self.ids)} jobs stay as "
                f"they are. They are given up after {PATIENCE_S:.0f} s: JOULELINE_SLURM_PATIENCE_S."
            )
            return {}
        logger.error(
            f"Slurm has not answered for {silence_s:.0f} s; its jobs count as failed here. Start snakemake again "
            "when Slurm is back: it waits for those that still run."
        )
        return dict.fromkeys(self.ids, "ERROR")

    def _forgotten(self, ids: set[str], logger) -> dict[str, str]:
        """Jobs that neither squeue nor sacct know, several times in a row: their outputs decide (UNKNOWN)."""
        self.unseen = Counter({job: self.unseen[job] + 1 for job in ids})
        lost = {job for job, times in self.unseen.items() if times >= UNSEEN_LIMIT}
        if lost:
            logger.warning(
                f"Slurm has forgotten the jobs {', '.join(sorted(lost))}; their output files decide."
            )
        return dict.fromkeys(lost, "UNKNOWN")

    def _normalise(self, job: str, state: str, logger) -> str:
        word = normalise(state, self.requeued)
        if word not in state:
            logger.warning(
                f"Slurm ended job {job} as {state}; it counts as failed and is retried as the profile says."
            )
        return word


_SQUEUE = ["squeue", "--noheader", "--format=%i|%T"]
_SACCT = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobIDRaw,State"]


async def _ask(command: list[str], logger) -> dict[str, str] | None:
    """Run a query that prints `id|state` lines. None where it fails or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        logger.debug(f"{command[0]}: {error}")
        return None
    try:
        out, problem = await asyncio.wait_for(process.communicate(), QUERY_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        logger.debug(f"{command[0]} took more than {QUERY_TIMEOUT_S} s")
        return None
    if process.returncode:
        logger.debug(f"{command[0]} failed: {problem.decode().strip()}")
        return None
    return dict(line.split("|", 1) for line in out.decode().splitlines() if "|" in line)


def _patch_status(executor: type, watch: Watch) -> None:
    check_active_jobs, post_init = executor.check_active_jobs, executor.__post_init__

    def checked_post_init(self, *args, **kwargs):
        from snakemake_interface_common.exceptions import WorkflowError

        if self.workflow.executor_settings.array_jobs:
            raise WorkflowError("--slurm-array-jobs gives every row the resources of the first: leave it out")
        post_init(self, *args, **kwargs)
        watch.requeued = bool(self.workflow.executor_settings.requeue)

    async def check(self, active_jobs):
        # The first call comes from a thread that is started before __post_init__ has run.
        if active_jobs:
            watch.ids = {job.external_jobid for job in active_jobs}
            watch.clusters = ["--clusters=all"] if self._submitted_job_clusters else []
        async for job in check_active_jobs(self, active_jobs):
            yield job
        if active_jobs:
            self._failed_nodes = {node for node in self._failed_nodes if NODE_NAME.fullmatch(node)}
        interval_s = self.workflow.executor_settings.init_seconds_before_status_checks
        self.next_seconds_between_status_checks = min(self.next_seconds_between_status_checks, 3 * interval_s)

    async def sleep(self):
        end_s = time.monotonic() + (self.next_seconds_between_status_checks or 0)
        while self.wait and time.monotonic() < end_s:
            await asyncio.sleep(min(0.5, max(0, end_s - time.monotonic())))

    executor.__post_init__, executor.check_active_jobs, executor.sleep = checked_post_init, check, sleep


def _patch_submission(executor: type) -> None:
    run_job, report_job_submission = executor.run_job, executor.report_job_submission

    def submit(self, job):
        with contextlib.suppress(Exception):  # whatever goes wrong here, the plugin's own way reports
            if leftover := _leftover_of(self, job):
                return _adopt(self, job, leftover)
            _wait_for_controller(self.logger)
        return run_job(self, job)

    def report(self, job_info, *args, **kwargs):
        report_job_submission(self, job_info, *args, **kwargs)
        if job_info.job.is_group():
            return
        with contextlib.suppress(OSError):
            COMMANDS.mkdir(parents=True, exist_ok=True)
            (COMMANDS / str(job_info.external_jobid)).write_text(_command_of(job_info.job))

    executor.run_job, executor.report_job_submission = submit, report
    executor.jouleline_leftovers = None


def _leftover_of(executor, job) -> str | None:
    """Id of a live job that an earlier snakemake of this folder submitted for the same outputs and command.

    One with another command would write to the same outputs: it is cancelled.
    """
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards

    if job.is_group():
        return None
    if executor.jouleline_leftovers is None or job.attempt > 1:
        executor.jouleline_leftovers = leftovers(executor.workflow.workdir_init)
    wildcards = get_job_wildcards(job)
    comment = f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}"
    same = None
    for slurm_id in executor.jouleline_leftovers.pop(comment, []):
        record = COMMANDS / slurm_id
        if same is None and record.exists() and record.read_text() == _command_of(job):
            same = slurm_id
        else:
            executor.logger.warning(
                f"Cancelling {slurm_id} of an earlier snakemake: its command is another one."
            )
            subprocess.run(["scancel", slurm_id], capture_output=True, timeout=QUERY_TIMEOUT_S)
    return same


def _command_of(job) -> str:
    """Digest of a job's shell command, which holds its row, protocol and code."""
    return hashlib.sha256((job.shellcmd or "").encode()).hexdigest()


def leftovers(folder: str | Path) -> dict[str, list[str]]:
    """Live jobs that were submitted from a folder: ids by job comment. Empty where Slurm does not answer."""
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%Z|%k"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S)
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        job, state, workdir, comment = line.split("|", 3)
        if state in LIVE and workdir and Path(workdir).resolve() == Path(folder).resolve():
            found.setdefault(comment, []).append(job)
    return found


def _adopt(executor, job, slurm_id: str) -> None:
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

    executor.logger.info(
        f"Job {job.jobid} is in Slurm's queue already, as {slurm_id} of an earlier snakemake: waiting for that one."
    )
    log = Path(executor.slurm_logdir) / f"rule_{job.name}" / get_job_wildcards(job) / f"{slurm_id}.log"
    executor._report_job_submission_threadsafe(
        SubmittedJobInfo(job, external_jobid=slurm_id, aux={"slurm_logfile": log})
    )


def _wait_for_controller(logger) -> None:
    """Return when slurmctld answers, or after PATIENCE_S."""
    began = time.monotonic()
    while (silence_s := time.monotonic() - began) < PATIENCE_S:
        ping = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i"]
        if subprocess.run(ping, capture_output=True, timeout=QUERY_TIMEOUT_S).returncode == 0:
            return
        logger.warning(f"Slurm has not answered for {silence_s:.0f} s; submissions wait.")
        time.sleep(5)
