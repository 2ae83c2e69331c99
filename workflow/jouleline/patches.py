"""Answers to what Snakemake 9.27 gets wrong. Each is False for another Snakemake, which stays as it is."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress

SCHEDULER = "snakemake.scheduling.job_scheduler", "JobScheduler"
PERSISTENCE = "snakemake.persistence.file", "FilePersistence"


def _replace(owner: tuple[str, str], name: str, ours: Callable) -> bool:
    """Let the method be `ours(self, theirs)`, where `theirs` is Snakemake's own; of several the last counts."""
    module, cls = owner
    place = getattr(sys.modules.get(module), cls, None)
    if not hasattr(place, name):
        return False
    theirs = getattr(place, name)
    theirs = getattr(theirs, "jouleline_replaces", theirs)

    def method(self):
        return ours(self, theirs)

    method.jouleline_replaces = theirs
    setattr(place, name, method)
    return True


def refuse_dry_runs_too(check: Callable[[], None]) -> bool:
    """Let a dry run end with what `check` raises of the jobs that would run, after its table.

    Snakemake calls `onstart` of real runs only: a dry run would end well, and the run after it be refused.
    """

    def schedule(self, theirs) -> bool:
        problem = None
        if self.dryrun:
            try:  # of jobs that are shown nothing is to be run any more
                check()
            except Exception as error:
                problem = error
        done = theirs(self)
        if problem:
            raise problem
        return done

    return _replace(SCHEDULER, "schedule", schedule)


def keep_locks_of_others() -> bool:
    """Let each snakemake take away its own locks alone; `--unlock` still takes all.

    Snakemake takes away the locks of a folder as soon as one in it ends. After a plan, or another campaign in the same
    checkout, a campaign that still runs could be started a second time, and would be measured twice side by side.
    """

    def delete_own(self, theirs) -> None:
        for path in self._lockfile.values():
            with suppress(FileNotFoundError):
                os.remove(path)
        self._lockfile.clear()

    def delete_all(self, theirs) -> None:
        shutil.rmtree(self._lockdir)

    return _replace(PERSISTENCE, "_delete_locks", delete_own) and _replace(
        PERSISTENCE, "cleanup_locks", delete_all
    )


def lock_nothing_where(measures_nothing: Callable[[], bool]) -> bool:
    """Take no lock, and wait for none, where that is so when the jobs are known."""

    def lock(self, theirs):
        return nullcontext() if measures_nothing() else theirs(self)

    return _replace(PERSISTENCE, "lock", lock)
