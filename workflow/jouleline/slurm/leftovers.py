"""Jobs that Slurm still has from an earlier snakemake, of this user or another. Their mark identifies them. They are
taken over or ended.

A mark stands in the comment of every job. It says what the job makes, and by which command.
"""

import hashlib
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from jouleline.slurm.ask import ask
from jouleline.slurm.status import LIVE

CANCEL_TIMEOUT_S = 120
MARK = re.compile(r"(.*):(\w{12})\.(\w{12})")


class Leftover(NamedTuple):
    """A job that Slurm has from this folder: its id, its state, the digest of its command, and the id of its user."""

    slurm_id: str
    state: str
    command: str
    user: str


class Occupied(RuntimeError):
    """Another user's job writes the files that a job would write."""


def mark_of(job, campaign: str) -> str:
    """`<what>.<how>`: digests of what a job makes (the same name makes the same files) and of its shell commands.

    The commands hold row, protocol and code. A grouped job is named by its group, because it may have lost finished
    parts.
    """
    commands = sorted(part.shellcmd or "" for part in parts_of(job))
    name = job.groupid if job.is_group() else f"{job.name} {wildcards_of(job)}"
    return f"{digest(campaign, name)}.{digest(*commands)}"


def name_of(job) -> str:
    """The name of a job for people: its rule, and the row or file that it is for."""
    return " ".join(filter(None, (job.name, wildcards_of(job))))


def wildcards_of(job) -> str:
    """The wildcards of a job in the form that the plugin writes. Empty for a group."""
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards

    return get_job_wildcards(job)


def parts_of(job) -> list:
    """The jobs of a group. For a single job, the job itself."""
    return list(job.jobs) if job.is_group() else [job]


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def leftover_of(executor, job, mark: str) -> Leftover | None:
    """A job that Slurm has, that this snakemake does not know of, and that does what `job` would do.

    A job with another command would write to the same files. It is cancelled, and this waits until it has ended. Raises
    Occupied where it belongs to another user, because only this user may cancel it.
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
    # Parts of a group that do not depend on each other are jobs of the same name. One more of them is no rival.
    rivals = [] if same and job.is_group() else [left for left in lefts if left is not same]
    for left in rivals:
        if left.state in LIVE:
            _end(executor, job, left)
    return same


def _will_do(left: Leftover, job) -> bool:
    """Whether a leftover works, or has made files that were missing when this snakemake looked for them."""
    return left.state in LIVE or (
        left.state == "COMPLETED"
        and all(
            part.dag.reason(part).missing_output and all(Path(file).exists() for file in part.output)
            for part in parts_of(job)
        )
    )


def leftovers(folder: str | Path) -> dict[str, list[Leftover]]:
    """Jobs of all users that were submitted from a folder, by what they make. Empty where Slurm does not answer."""
    found: dict[str, list[Leftover]] = {}
    for line in (ask("squeue", "--noheader", "--states=all", "--format=%i|%T|%U|%Z|%k") or "").splitlines():
        fields = line.split("|", 4)
        mark = MARK.fullmatch(fields[-1])
        if len(fields) == 5 and mark and Path(fields[3]).resolve() == Path(folder).resolve():
            slurm_id, state, user = fields[:3]
            found.setdefault(mark[2], []).append(Leftover(slurm_id, state, mark[3], user))
    return found


def _end(executor, job, left: Leftover) -> None:
    if left.user != str(os.getuid()):
        raise Occupied(
            f"user {left.user} has job {left.slurm_id} ({left.state}) of the same folder for {name_of(job)}, by "
            "another command; wait for it or ask them to scancel it, or set `results` to a folder of your own"
        )
    executor.logger.warning(
        f"Cancelling {left.slurm_id} of an earlier snakemake: its command is another one."
    )
    ask("scancel", left.slurm_id)
    deadline = time.monotonic() + CANCEL_TIMEOUT_S
    mine = ("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i")
    while left.slurm_id in (ask(*mine) or "").split() and time.monotonic() < deadline:
        time.sleep(0.5)


def adopt(executor, job, left: Leftover) -> None:
    """Let the executor wait for a leftover, as for a job that it submitted."""
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

    whose = "an earlier snakemake" if left.user == str(os.getuid()) else f"user {left.user}"
    executor.logger.info(
        f"Job {job.jobid} is in Slurm's queue already, as {left.slurm_id} of {whose}: waiting for that one."
    )
    kind = "group" if job.is_group() else "rule"
    log = Path(executor.slurm_logdir) / f"{kind}_{job.name}" / wildcards_of(job) / f"{left.slurm_id}.log"
    executor._report_job_submission_threadsafe(
        SubmittedJobInfo(job, external_jobid=left.slurm_id, aux={"slurm_logfile": log})
    )
