"""The states of the active jobs in the words of the executor plugin, and why a job waits or has failed.

squeue is asked first. Jobs that it has forgotten are looked up in accounting.
"""

import asyncio
import contextlib
import math
import os
import re
import shutil
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from jouleline.slurm.ask import ask

PATIENCE = "JOULELINE_SLURM_PATIENCE_S"


def patience_s() -> float | None:
    """How many seconds to wait for a silent Slurm. None where the user's own value is no number above 0."""
    try:
        given = float(os.environ.get(PATIENCE) or 3600)
    except ValueError:
        return None
    return given if 0 < given < math.inf else None


# Where it is None, the executor refuses to begin.
PATIENCE_S = patience_s() or 3600.0
UNSEEN_LIMIT = 3
# Slurm ends a job some time after its limit (OverTimeLimit, KillWait).
OVERTIME_S = 600
ENDED_BADLY = {"PREEMPTED", "REVOKED", "SPECIAL_EXIT", "LAUNCH_FAILED", "RECONFIG_FAIL"}
LIVE = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED"}
OPEN = LIVE | {"COMPLETING", "STOPPED", "RESIZING", "REQUEUED", "SIGNALING", "STAGE_OUT"}
# Slurm holds these jobs until somebody releases them.
HELD = {"REQUEUE_HOLD", "RESV_DEL_HOLD"}
OPEN |= HELD | {"REQUEUE_FED", "POWER_UP_NODE", "UPDATE_DB", "EXPEDITING"}
NODE_NAME = re.compile(r"[\w.-]+")

_LESS_TIME = "it asks for more time than is allowed; --set-resources RULE:runtime=MINUTES asks for less"
_LESS_MEMORY = "it asks for more memory than is allowed; --set-resources RULE:mem_mb=MB asks for less"
_LESS = "it asks for more than is allowed; take another partition or account (profiles/README.md), or fewer devices"
_ELSEWHERE = (
    "name another with --default-resources slurm_partition=... or slurm_account=... (profiles/README.md)"
)
# Reasons of squeue for which a job waits until somebody changes something, and what to change.
NEVER = {
    "PartitionTimeLimit": _LESS_TIME,
    "AssocMaxWallDurationPerJobLimit": _LESS_TIME,
    "QOSMaxWallDurationPerJobLimit": _LESS_TIME,
    "MaxMemPerLimit": _LESS_MEMORY,
    "QOSMaxMemoryPerJob": _LESS_MEMORY,
    "AssocMaxMemPerJob": _LESS_MEMORY,
    "PartitionNodeLimit": _LESS,
    "AssocMaxNodePerJobLimit": _LESS,
    "QOSMaxNodePerJobLimit": _LESS,
    "AssocMaxCpuPerJobLimit": _LESS,
    "QOSMaxCpuPerJobLimit": _LESS,
    "AssocMaxGRESPerJob": _LESS,
    "QOSMaxGRESPerJob": _LESS,
    "QOSMinGRES": "it asks for less than the quality of service demands; " + _ELSEWHERE,
    "BadConstraints": "no node has what it asks for; correct `constraint`, or node.gres of the campaign",
    "PartitionDown": "its partition is down; " + _ELSEWHERE,
    "PartitionInactive": "its partition takes no jobs; " + _ELSEWHERE,
    "AccountNotAllowed": "the partition does not take its account; " + _ELSEWHERE,
    "InvalidAccount": "its account is not valid; " + _ELSEWHERE,
    "QOSNotAllowed": "the partition does not take its quality of service; see slurm-qos in profiles/README.md",
    "InvalidQOS": "its quality of service is not valid; see slurm-qos in profiles/README.md",
    "DependencyNeverSatisfied": "it waits for a job that has failed; cancel it with scancel",
    "JobHeldUser": "it is held; `scontrol release` lets it go",
    "JobHeldAdmin": "an administrator holds it; ask them",
    "JobHoldMaxRequeue": "it was requeued too often and is held; `scontrol release` lets it go",
    "ReservationDeleted": "its reservation is gone; see slurm-reservation in profiles/README.md",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved (maintenance); wait, or name others",
    "NodeDown": "a node that it needs is down; wait for it, or name others",
    "QOSUsageThreshold": "its account has used too much of the cluster for this quality of service; wait, or "
    + _ELSEWHERE,
    "launch failed requeued held": "its node could not start it, and it is held; `scontrol release` lets it go",
    "job requeued in held state": "it was requeued and is held; `scontrol release` lets it go",
}
# The limits of accounts (Assoc) and qualities of service (QOS) that the names above do not cover.
_LIMITS = (
    (r"(QOS|Assoc)\w*RunMin\w*", ""),  # of running jobs: there will be room
    (
        r"(QOS|Assoc)\w*(Minutes|Mins)\w*|(QOS|Assoc)Grp\w*Wall\w*",
        "the time that its account or quality of service may use is spent, or too little for it; ask for more, or "
        + _ELSEWHERE,
    ),
    (r"(QOS|Assoc)Max\w*Mem\w*Per(Job|Node)\w*", _LESS_MEMORY),
    (r"(QOS|Assoc)Max\w*Per(Job|Node)\w*|MaxBBPerJob", _LESS),
    (r"QOSMin\w*", "it asks for less than the quality of service demands; " + _ELSEWHERE),
)


def never(reason: str) -> str:
    """What helps a job that waits for this reason of squeue. Empty where it will start by itself."""
    known = NEVER.get(reason) or NEVER.get((re.match(r"\w*", reason) or [""])[0])
    if known:
        return known
    return next((remedy for name, remedy in _LIMITS if re.fullmatch(name, reason)), "")


def normalise(state: str, requeued: bool = False) -> str:
    """A state of squeue or sacct in the plugin's words. `requeued`: Slurm itself starts preempted jobs again."""
    word = state.split()[0].rstrip("+") if state.split() else ""
    if word in ENDED_BADLY and not (word == "PREEMPTED" and requeued):
        return "FAILED"
    return word


class Watch:
    """States of the active jobs, by job id. They come from squeue, and from sacct for jobs that squeue has
    forgotten."""

    def __init__(self) -> None:
        self.campaign = ""
        # What each active job makes, by its id.
        self.jobs: dict[str, str] = {}
        # Jobs of other users may have been taken over.
        self.users = {str(os.getuid())}
        self.requeued = False
        self.clusters: list[str] = []
        self.last_answer_s = time.monotonic()
        self.unseen: dict[str, tuple[int, float]] = {}
        self.told: set[tuple[str, str]] = set()
        self.failed_nodes: set[str] = set()

    async def query(self, command: str, logger) -> tuple[dict[str, str], float]:
        """Replaces the plugin's query_job_status: (states, seconds), never None. The command is not used."""
        began = time.monotonic()
        users = f"--user={','.join(sorted(self.users))}"
        options = ("--noheader", users, "--states=all", "--format=%i|%T|%N|%r", *self.clusters)
        queue = await _table("squeue", *options)
        found = {job: fields for job, fields in (queue or {}).items() if job in self.jobs}
        states = {job: fields[0] for job, fields in found.items()}
        self.failed_nodes |= {
            fields[1]
            for fields in found.values()
            if fields[0] == "NODE_FAIL" and NODE_NAME.fullmatch(fields[1])
        }
        self._tell_why(found, logger)
        accounting = await self._ask_accounting(self.jobs.keys() - states.keys())
        states |= {job: fields[0] for job, fields in accounting.items()}
        unended = {job for job in self.jobs.keys() - found if normalise(states.get(job, "RUNNING")) in OPEN}
        if queue is None:
            states |= self._without_answer(unended, logger)
        else:
            self.last_answer_s = time.monotonic()
            states |= self._forgotten(unended, accounting, logger)
        return {
            job: self._normalise(job, state, logger) for job, state in states.items()
        }, time.monotonic() - began

    async def _ask_accounting(self, ids: set[str]) -> dict[str, list[str]]:
        """{job: [state, start, limit in minutes]} of jobs that squeue does not know."""
        if not ids or not shutil.which("sacct"):
            return {}
        options = ("--allocations", "--noheader", "--parsable2", "--format=JobIDRaw,State,Start,TimelimitRaw")
        found = await _table("sacct", *options, f"--jobs={','.join(sorted(ids))}", *self.clusters)
        return {job: fields for job, fields in (found or {}).items() if job in ids}

    def _tell_why(self, found: dict[str, list[str]], logger) -> None:
        """Tell once for each job that it waits for something that will not come by itself."""
        for job, (state, _, why, *_) in ((job, [*fields, "", ""]) for job, fields in found.items()):
            remedy = (
                ""
                if state not in ("PENDING", *HELD)
                else never(why) or NEVER["JobHeldUser"] * (state in HELD)
            )
            if remedy and (job, remedy) not in self.told:
                self.told.add((job, remedy))
                logger.warning(f"Slurm does not start {self.jobs[job]} (job {job}, {why}): {remedy}.")

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

    def _forgotten(self, ids: set[str], accounting: dict[str, list[str]], logger) -> dict[str, str]:
        """Jobs that squeue does not know several times in a row, and that sacct does not know as alive.

        Their outputs decide (UNKNOWN). After a controller loses its state, accounting takes some jobs for running for
        ever. This waits for such a job until its time limit has passed, when Slurm would have ended it.
        """
        now_s = time.monotonic()
        self.unseen = {
            job: (times + 1, since_s) for job in ids for times, since_s in [self.unseen.get(job, (0, now_s))]
        }
        lost = set()
        for job, (times, since_s) in self.unseen.items():
            left_s = _left_s(accounting[job], since_s) if job in accounting else 0.0
            if times >= UNSEEN_LIMIT and left_s <= 0:
                lost.add(job)
            elif times == UNSEEN_LIMIT:
                logger.warning(
                    f"squeue does not know {self.jobs[job]} (job {job}), which accounting has as "
                    f"{accounting[job][0]}; it is waited for, at most {left_s / 60:.0f} minutes."
                )
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


def _left_s(fields: list[str], since_s: float) -> float:
    """Seconds until a job that accounting takes for alive must have ended. PATIENCE_S after `since_s` where this is not
    known."""
    with contextlib.suppress(ValueError, IndexError):
        started_s = datetime.fromisoformat(fields[1]).timestamp()
        return started_s + 60 * float(fields[2]) + OVERTIME_S - time.time()
    return since_s + PATIENCE_S - time.monotonic()


async def _table(*command: str) -> dict[str, list[str]] | None:
    """A query that prints lines of `id|field|field`: {id: fields}. None without an answer."""
    said = await asyncio.to_thread(ask, *command)
    if said is None:
        return None
    return {line.split("|")[0]: line.split("|")[1:] for line in said.splitlines() if "|" in line}


# ---- Why a job failed


_OF_SLURM = re.compile(r"^(?:slurmstepd\S*|srun): (?:error: )?(.+)$", re.M)


def said_by_slurm(logs: Iterable[str | None]) -> str:
    """What Slurm itself wrote into the logs of a job (a limit exceeded, a node lost), each line once."""
    said: list[str] = []
    for log in filter(None, logs):
        with contextlib.suppress(OSError):
            said += _OF_SLURM.findall(Path(log).read_text(encoding="utf-8", errors="replace"))
    return "".join(f"\n        {line}" for line in dict.fromkeys(said)) + "\n"


class End(NamedTuple):
    """How slurmctld says that a job ended: exit code and signal (`0:53`), and its reason."""

    code: str
    reason: str


def end_of(job: str) -> End | None:
    """How a job ended. None where slurmctld does not answer, or has forgotten the job."""
    said = ask("scontrol", "--oneliner", "show", "job", job)
    code = re.search(r"\bExitCode=(\S+)", said or "")
    reason = re.search(r"\bReason=(\S+)", said or "")
    return End(code[1], reason[1] if reason else "") if code else None


def never_began(job: str, log: Path | None) -> str:
    """The line about a job that ended before its first command. Empty for a job that began."""
    end = end_of(job)
    if end is None or end.code != "0:53":
        return ""
    where = log.parent if log is not None else "its folder"
    if log is not None and not log.parent.is_dir():
        why = "which was removed while the job waited"
    else:
        why = "which that node cannot write; is it on a file system that all nodes share, and not full?"
    return (
        f"\n        The job never began (exit 0:53): Slurm could not open its log in {where}, {why}. "
        "Start snakemake again."
    )
