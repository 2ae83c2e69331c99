"""What is refused before anything runs is refused of a dry run too."""

from collections.abc import Callable

from jouleline.patches.methods import SCHEDULER, replace


def refuse_too(check: Callable[[], None]) -> bool:
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

    return replace(SCHEDULER, "schedule", schedule)
