"""A dry run refuses what a real run would refuse before it starts."""

from collections.abc import Callable

from jouleline.patches.methods import SCHEDULER, replace


def refuse_too(check: Callable[[], None]) -> bool:
    """Let a dry run end, after its table, with the error that `check` raises about the jobs.

    Snakemake calls `onstart` for real runs only. So a dry run would end well, and the real run would then be refused.
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

    return replace(SCHEDULER, "schedule", schedule)
