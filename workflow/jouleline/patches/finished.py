"""What is measured stays, however the job or the Snakemake around it ended.

Snakemake 9.27 deletes the outputs of a job that was stopped after it had made them. It makes outputs again when it did
not see the job end. So an interrupt on Slurm lost the runs that had ended since Snakemake last asked. The record of a
run itself knows whether it is complete.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jouleline.patches.methods import JOB, RECORDS, SCHEDULER, replace


def keep(made: Callable[[Any], bool]) -> bool:
    """Keep the outputs of a job, and do not make them again, where `made(job)` says they are there, whole and its own.

    A forced job is made again.
    """

    async def cleanup(self, theirs, skip_outputs) -> None:
        if not made(self):
            await theirs(self, skip_outputs)

    def finish_jobs(self, theirs) -> None:
        # A job that failed after it had made its files has not failed. Else it would be tried again.
        for job in [job for job in self._toerror if made(job) and _is_new(job)]:
            from snakemake.logging import logger

            logger.warning(
                f"Job {job.jobid} has made its files, whole, before it failed: it counts as finished."
            )
            self._toerror.remove(job)
            self._tofinish.append(job)
        theirs(self)

    async def incomplete(self, theirs, job) -> list:
        found = await theirs(self, job)
        return [] if found and made(job) and _take_up(self, job) else found

    def params_changed(self, theirs, job, file=None):
        # Nobody saw the job end, so the recorded parameters are those of the files before it.
        changed = theirs(self, job, file)
        return False if changed and made(job) and _take_up(self, job) else changed

    return (
        replace(JOB, "cleanup", cleanup)
        and replace(SCHEDULER, "_finish_jobs", finish_jobs)
        and replace(RECORDS, "started", _started)
        and replace(RECORDS, "incomplete", incomplete)
        and replace(RECORDS, "params_changed", params_changed)
        and replace(RECORDS, "lock", _lock)
    )


def _started(self, theirs, job, *args, **kwargs) -> None:
    self.jouleline_before = {**getattr(self, "jouleline_before", {}), job: _stamps(job)}
    theirs(self, job, *args, **kwargs)


def _is_new(job) -> bool:
    """Whether this start of a job made its files, and not an earlier one."""
    before = getattr(job.dag.workflow.persistence, "jouleline_before", {})
    return job in before and before[job] != _stamps(job)


def _stamps(job) -> list[tuple[int, int] | None]:
    def stamp(path: Path) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    return [stamp(path) for path in job.output]


def _take_up(persistence, job) -> bool:
    persistence.jouleline_taken = {**getattr(persistence, "jouleline_taken", {}), job: None}
    return True


@contextmanager
def _lock(self, theirs) -> Iterator[None]:
    """Record what was kept as soon as nobody else writes here."""
    with theirs(self):
        for job in getattr(self, "jouleline_taken", ()):
            if not self.dag.needrun(job):
                self.dag.workflow.async_run(self.finished(job))
        yield
