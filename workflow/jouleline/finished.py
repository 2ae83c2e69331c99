"""What is measured stays, however the job or the Snakemake around it ended.

Snakemake 9.27 takes the outputs of a job away that was stopped after it had made them, and makes those again whose end
it has not noted: an interrupt on Slurm cost the runs that had ended since it last asked. A run's own record knows.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Where Snakemake decides: class, and its methods.
PLACES = {
    ("snakemake.jobs", "Job"): ("cleanup",),
    ("snakemake.scheduling.job_scheduler", "JobScheduler"): ("_finish_jobs",),
    ("snakemake.persistence", "PersistenceBase"): ("started", "incomplete", "params_changed", "lock"),
}
Predicate = Callable[[Any], bool]


def keep(made: Predicate) -> bool:
    """Neither delete nor make again what a job is for where `made` says of it that it is there, whole and its own.

    False for another Snakemake. What is forced is made again.
    """
    owners = [getattr(sys.modules.get(module), name, None) for module, name in PLACES]
    names = [*zip(owners, PLACES.values(), strict=True)]
    if not all(hasattr(owner, method) for owner, methods in names for method in methods):
        return False
    for owner, method in ((owner, method) for owner, methods in names for method in methods):
        own = f"jouleline_kept_{method}"
        if not hasattr(owner, own):
            setattr(owner, own, getattr(owner, method))
        setattr(owner, method, _ANSWERS[method](getattr(owner, own), made))
    return True


def _cleanup(cleanup: Callable, made: Predicate) -> Callable:
    async def unless_made(self, skip_outputs) -> None:
        if not made(self):
            await cleanup(self, skip_outputs)

    return unless_made


def _finish_jobs(finish_jobs: Callable, made: Predicate) -> Callable:
    """A job that failed after it had made its files has not failed: it would be tried again."""

    def with_those_that_made(self) -> None:
        for job in [job for job in self._toerror if made(job) and _is_new(job)]:
            from snakemake.logging import logger

            logger.warning(
                f"Job {job.jobid} has made its files, whole, before it failed: it counts as finished."
            )
            self._toerror.remove(job)
            self._tofinish.append(job)
        finish_jobs(self)

    return with_those_that_made


def _started(started: Callable, made: Predicate) -> Callable:
    def with_what_was_there(self, job, *args, **kwargs) -> None:
        self.jouleline_before = {**getattr(self, "jouleline_before", {}), job: _stamps(job)}
        started(self, job, *args, **kwargs)

    return with_what_was_there


def _is_new(job) -> bool:
    """Whether this start of a job made its files, and no earlier one."""
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


def _incomplete(incomplete: Callable, made: Predicate) -> Callable:
    async def unless_made(self, job) -> list:
        found = await incomplete(self, job)
        return [] if found and _take_up(self, job, made) else found

    return unless_made


def _params_changed(params_changed: Callable, made: Predicate) -> Callable:
    """Where the job ended unseen, the parameters that are noted are those of what was there before."""

    def unless_made(self, job, file=None):
        changed = params_changed(self, job, file)
        return False if changed and _take_up(self, job, made) else changed

    return unless_made


def _take_up(persistence, job, made: Predicate) -> bool:
    if not made(job):
        return False
    persistence.jouleline_taken = {**getattr(persistence, "jouleline_taken", {}), job: None}
    return True


def _lock(lock: Callable, made: Predicate) -> Callable:
    """What was taken up is noted as soon as nobody else writes here."""

    @contextmanager
    def and_note(self) -> Iterator[None]:
        with lock(self):
            for job in getattr(self, "jouleline_taken", ()):
                if not self.dag.needrun(job):
                    self.dag.workflow.async_run(self.finished(job))
            yield

    return and_note


_ANSWERS = {
    "cleanup": _cleanup,
    "_finish_jobs": _finish_jobs,
    "started": _started,
    "incomplete": _incomplete,
    "params_changed": _params_changed,
    "lock": _lock,
}
