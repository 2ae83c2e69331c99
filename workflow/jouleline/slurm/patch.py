"""Answers to what snakemake-executor-plugin-slurm 2.8.0 gets wrong. For that version only; goes away with it.

The profile answers what a setting can answer (squeue as the status command, no requeueing, retries, no task counts).
What is left would hang a campaign or measure a row twice, and is answered here:

- `sacct` prints "CANCELLED by 1000", the plugin waits for "CANCELLED" for ever: states are cut to their first word.
- A preempted job that may not requeue, and a state the plugin does not know, are waited for: they count as failed.
- When every status query of a cycle fails, running jobs are forgotten and the workflow never ends: they are kept, the
  user is told, and only after PATIENCE_S without an answer are they given up.
- A finished job that slurmctld has forgotten (MinJobAge), or that it lost with its state, is waited for: accounting is
  asked, and where it knows of no end the output files decide. The plugin itself asks sacct nothing: it would wait for
  the answer however long that takes.
- "None assigned" and lists of nodes land in --exclude after a node failure: only single nodes do, as squeue names them.
- Ten seconds are added to the interval after every quiet check, up to three minutes, and a whole interval is slept at
  the end: at most three intervals, and none at the end.
- Jobs that a killed snakemake left in the queue, or that a timed-out sbatch did submit, are submitted again beside
  themselves: they are waited for, or cancelled where the command would be another one today (other code, protocol or
  row). A mark in the comment of every job tells: what it makes, and by which command.
- A submission while slurmctld restarts fails the job: it waits.
- A grouped job whose submission fails is never reported, and the workflow waits for it for ever: it is reported.
- Why a job failed is not told without sacct, nor is the job's log shown after an empty one, nor anything of a group:
  what Slurm wrote into the log (memory, time limit, node) is told.
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
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

DISTRIBUTION = "snakemake-executor-plugin-slurm"
MODULE = "snakemake_executor_plugin_slurm"
VERSION = "2.8.0"
PATIENCE_S = float(os.environ.get("JOULELINE_SLURM_PATIENCE_S", 3600))
QUERY_TIMEOUT_S = 60
CANCEL_TIMEOUT_S = 120
UNSEEN_LIMIT = 3
ENDED_BADLY = {"PREEMPTED", "REVOKED", "SPECIAL_EXIT", "LAUNCH_FAILED", "RECONFIG_FAIL"}
LIVE = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED"}
OPEN = LIVE | {"COMPLETING", "STOPPED", "RESIZING", "REQUEUED", "SIGNALING", "STAGE_OUT"}
MARK = re.compile(r"(.*):(\w{12})\.(\w{12})")
NODE_NAME = re.compile(r"[\w.-]+")


def apply(campaign: str = "") -> bool:
    """Patch the plugin where Snakemake has loaded it; True if that was done (now or before).

    `campaign` tells apart the campaigns of one folder (their results folder, say). Returns False without the plugin.
    Another version than VERSION is left as it is and refuses to submit: without the answers it may hang.
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
        _patch_status(plugin.Executor, plugin.jouleline_watch)
        _patch_submission(plugin)
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


def normalise(state: str, requeued: bool = False) -> str:
    """A state of squeue or sacct in the plugin's words. `requeued`: Slurm itself starts preempted jobs again."""
    word = state.split()[0].rstrip("+") if state.split() else ""
    if word in ENDED_BADLY and not (word == "PREEMPTED" and requeued):
        return "FAILED"
    return word


class Watch:
    """States of the active jobs, by job id: from squeue, and of those that it has forgotten from sacct."""

    def __init__(self) -> None:
        self.campaign = ""
        self.ids: set[str] = set()
        self.requeued = False
        self.clusters: list[str] = []
        self.last_answer_s = time.monotonic()
        self.unseen: Counter[str] = Counter()
        self.failed_nodes: set[str] = set()

    async def query(self, command: str, logger) -> tuple[dict[str, str], float]:
        """In the place of the plugin's query_job_status: (states, seconds), never None. The command is not used."""
        began = time.monotonic()
        queue = await _ask([*_SQUEUE, f"--user={os.getuid()}", "--states=all", *self.clusters], logger)
        found = {job: fields.split("|") for job, fields in (queue or {}).items() if job in self.ids}
        states = {job: state for job, (state, _) in found.items()}
        self.failed_nodes |= {
            nodes for state, nodes in found.values() if state == "NODE_FAIL" and NODE_NAME.fullmatch(nodes)
        }
        accounting = await self._ask_accounting(self.ids - set(states), logger)
        states |= accounting or {}
        unended = {job for job in self.ids - set(found) if normalise(states.get(job, "RUNNING")) in OPEN}
        if queue is None:
            states |= self._without_answer(unended, logger)
        else:
            self.last_answer_s = time.monotonic()
            states |= self._forgotten(unended, logger)
        return {
            job: self._normalise(job, state, logger) for job, state in states.items()
        }, time.monotonic() - began

    async def _ask_accounting(self, ids: set[str], logger) -> dict[str, str] | None:
        if not ids or not shutil.which("sacct"):
            return None
        found = await _ask([*_SACCT, f"--jobs={','.join(sorted(ids))}", *self.clusters], logger)
        return None if found is None else {job: state for job, state in found.items() if job in ids}

    def _without_answer(self, ids: set[str], logger) -> dict[str, str]:
        """squeue is silent, and accounting does not say that these jobs have ended."""
        silence_s = time.monotonic() - self.last_answer_s
        if not ids:
            return {}
        if silence_s < PATIENCE_S:
            logger.warning(
                f"Slurm has not answered for {silence_s:.0f} s (squeue fails); {len(ids)} jobs stay as they are. "
                f"They are given up after {PATIENCE_S:.0f} s: JOULELINE_SLURM_PATIENCE_S."
            )
            return {}
        logger.error(
            f"Slurm has not answered for {silence_s:.0f} s; its jobs count as failed here. Start snakemake again "
            "when Slurm is back: it waits for those that still run."
        )
        return dict.fromkeys(ids, "ERROR")

    def _forgotten(self, ids: set[str], logger) -> dict[str, str]:
        """Jobs that squeue does not know several times in a row, nor sacct as ended: their outputs decide (UNKNOWN).

        Accounting takes a job for running until it is told of the end, by a controller that may have lost its state.
        """
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


_SQUEUE = ["squeue", "--noheader", "--format=%i|%T|%N"]
_SACCT = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobIDRaw,State"]


async def _ask(command: list[str], logger) -> dict[str, str] | None:
    """Run a query that prints lines of `id|fields`. None where it fails or takes too long."""
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
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5)
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
        missing = [name for name in ("sbatch", "squeue") if not shutil.which(name)]
        if missing:
            raise WorkflowError(
                f"{' and '.join(missing)} not found; load Slurm's module, or use --profile profiles/local"
            )
        post_init(self, *args, **kwargs)
        watch.requeued = bool(self.workflow.executor_settings.requeue)

    async def check(self, active_jobs):
        # The first call comes from a thread that is started before __post_init__ has run.
        if active_jobs:
            watch.ids = {job.external_jobid for job in active_jobs}
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


def _patch_submission(plugin) -> None:
    executor, get_submit_command, watch = plugin.Executor, plugin.get_submit_command, plugin.jouleline_watch
    run_job, report_job_submission = executor.run_job, executor.report_job_submission
    report_job_error, shutdown, cancel = executor.report_job_error, executor.shutdown, executor.cancel

    def marked(job, params, *args, **kwargs):
        mark = f"{params['comment_str']}:{mark_of(job, watch.campaign)}"
        return get_submit_command(job, {**params, "comment_str": mark}, *args, **kwargs)

    def submit(self, job):
        try:
            _wait_for_controller(self)
            leftover = _leftover_of(self, job, mark_of(job, watch.campaign))
            return _adopt(self, job, leftover) if leftover else run_job(self, job)
        except Exception as problem:
            # run_job itself fails when it wants to tell why a grouped job could not be submitted
            from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

            said = f"Job submission failed: {problem.__context__ or problem}\n"
            self._report_job_error_threadsafe(SubmittedJobInfo(job), said)

    def report(self, job_info, *args, **kwargs):
        self.jouleline_own.add(job_info.external_jobid)
        report_job_submission(self, job_info, *args, **kwargs)

    def report_error(self, job_info, msg=None, aux_logs=(), **kwargs):
        msg = (msg or "").replace(_NO_REASON, "") + said_by_slurm(aux_logs)
        if job_info.job.is_group():
            self.logger.error(msg)
        report_job_error(self, job_info, msg, aux_logs=[*aux_logs], **kwargs)

    def ending(end):
        def end_without_waiting(self):
            self.jouleline_ends = True
            end(self)

        return end_without_waiting

    plugin.get_submit_command = marked
    executor.run_job, executor.report_job_submission, executor.report_job_error = submit, report, report_error
    executor.shutdown, executor.cancel = ending(shutdown), ending(cancel)
    executor.jouleline_own, executor.jouleline_leftovers, executor.jouleline_ends = set(), None, False


_NO_REASON = " Detailed failure reason unavailable (status command is not 'sacct')."
_OF_SLURM = re.compile(r"^(?:slurmstepd\S*|srun): (?:error: )?(.+)$", re.M)


def said_by_slurm(logs: Iterable[str | None]) -> str:
    """What Slurm itself wrote into the logs of a job (a limit exceeded, a node lost), each line once."""
    said: list[str] = []
    for log in filter(None, logs):
        with contextlib.suppress(OSError):
            said += _OF_SLURM.findall(Path(log).read_text(errors="replace"))
    return "".join(f"\n        {line}" for line in dict.fromkeys(said)) + "\n"


class Leftover(NamedTuple):
    """A job that Slurm has from this folder: its id, its state, and the digest of its command."""

    slurm_id: str
    state: str
    command: str


def mark_of(job, campaign: str) -> str:
    """`<what>.<how>`: digests of what a job makes (the same name makes the same files) and of its shell commands.

    The commands hold row, protocol and code. A grouped job is named by its group: it may have lost finished parts.
    """
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards

    name = job.groupid if job.is_group() else f"{job.name} {get_job_wildcards(job)}"
    commands = sorted(part.shellcmd or "" for part in _parts(job))
    return f"{_digest(campaign, name)}.{_digest(*commands)}"


def _parts(job) -> list:
    return list(job.jobs) if job.is_group() else [job]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _leftover_of(executor, job, mark: str) -> str | None:
    """Id of a job in Slurm's hands that this snakemake does not know of and that does what `job` would do.

    One with another command would write to the same files: it is cancelled, and waited for until it has ended.
    """
    if executor.jouleline_leftovers is None or job.attempt > 1:
        executor.jouleline_leftovers = leftovers(executor.workflow.workdir_init)
    what, command = mark.split(".")
    lefts = [
        left
        for left in executor.jouleline_leftovers.get(what, [])
        if left.slurm_id not in executor.jouleline_own
    ]
    same = next((left for left in lefts if left.command == command and _will_do(left, job)), None)
    # Parts of a group that do not hang together are jobs of the same name: one more is no rival.
    rivals = [] if same and job.is_group() else [left for left in lefts if left is not same]
    for left in rivals:
        if left.state in LIVE:
            executor.logger.warning(
                f"Cancelling {left.slurm_id} of an earlier snakemake: its command is another one."
            )
            _cancel(left.slurm_id)
    return same.slurm_id if same else None


def _will_do(left: Leftover, job) -> bool:
    """Whether a leftover is at work, or has made files that were missing when this snakemake looked for them."""
    return left.state in LIVE or (
        left.state == "COMPLETED"
        and all(
            part.dag.reason(part).missing_output and all(Path(file).exists() for file in part.output)
            for part in _parts(job)
        )
    )


def leftovers(folder: str | Path) -> dict[str, list[Leftover]]:
    """Jobs that were submitted from a folder, by what they make. Empty where Slurm does not answer."""
    found: dict[str, list[Leftover]] = {}
    for line in (_squeue("--states=all", "--format=%i|%T|%Z|%k") or "").splitlines():
        slurm_id, state, workdir, comment = line.split("|", 3)
        mark = MARK.fullmatch(comment)
        if mark and Path(workdir).resolve() == Path(folder).resolve():
            found.setdefault(mark[2], []).append(Leftover(slurm_id, state, mark[3]))
    return found


def _squeue(*options: str) -> str | None:
    """What squeue says of this user's jobs; None where it does not answer."""
    command = ["squeue", "--noheader", f"--user={os.getuid()}", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cancel(slurm_id: str) -> None:
    subprocess.run(["scancel", slurm_id], capture_output=True, timeout=QUERY_TIMEOUT_S)
    deadline = time.monotonic() + CANCEL_TIMEOUT_S
    while slurm_id in (_squeue("--format=%i") or "").split() and time.monotonic() < deadline:
        time.sleep(0.5)


def _adopt(executor, job, slurm_id: str) -> None:
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

    executor.logger.info(
        f"Job {job.jobid} is in Slurm's queue already, as {slurm_id} of an earlier snakemake: waiting for that one."
    )
    kind = "group" if job.is_group() else "rule"
    log = Path(executor.slurm_logdir) / f"{kind}_{job.name}" / get_job_wildcards(job) / f"{slurm_id}.log"
    executor._report_job_submission_threadsafe(
        SubmittedJobInfo(job, external_jobid=slurm_id, aux={"slurm_logfile": log})
    )


def _wait_for_controller(executor) -> None:
    """Return when slurmctld answers, or after PATIENCE_S. Raises where the workflow ends meanwhile."""
    began = told = time.monotonic()
    while _squeue("--format=%i") is None:
        if executor.jouleline_ends:
            raise RuntimeError("the workflow ends")
        silence_s = time.monotonic() - began
        if silence_s > PATIENCE_S:
            return
        if told == began or time.monotonic() - told > 30:
            told = time.monotonic()
            executor.logger.warning(f"Slurm has not answered for {silence_s:.0f} s; submissions wait.")
        time.sleep(1)
