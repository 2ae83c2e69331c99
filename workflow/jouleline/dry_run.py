"""What is refused before anything runs is refused of a dry run too, after its table.

Snakemake 9.27 calls `onstart` of real runs only: a dry run would end well, and the run after it be refused.
"""

import sys
from collections.abc import Callable

MODULE = "snakemake.scheduling.job_scheduler"


def refuse(check: Callable[[], None]) -> bool:
    """Let a dry run end with what `check` raises of the jobs that would run. False for another Snakemake."""
    scheduler = getattr(sys.modules.get(MODULE), "JobScheduler", None)
    if not hasattr(scheduler, "schedule"):
        return False
    if not hasattr(scheduler, "jouleline_schedule"):
        scheduler.jouleline_schedule = scheduler.schedule
    scheduler.jouleline_check = staticmethod(check)
    scheduler.schedule = _schedule
    return True


def _schedule(self) -> bool:
    problem = None
    if self.dryrun:
        try:  # of jobs that are shown nothing is to be run any more
            self.jouleline_check()
        except Exception as error:
            problem = error
    done = self.jouleline_schedule()
    if problem:
        raise problem
    return done
