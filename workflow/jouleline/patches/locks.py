"""Snakemake's locks of a folder, one for each snakemake in it."""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress

from jouleline.patches.methods import RECORDS, RECORDS_IN_FILES, replace


def keep_those_of_others() -> bool:
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

    return replace(RECORDS_IN_FILES, "_delete_locks", delete_own) and replace(
        RECORDS_IN_FILES, "cleanup_locks", delete_all
    )


def none_where(measures_nothing: Callable[[], bool]) -> bool:
    """Take no lock, and wait for none, where that is so when the jobs are known."""

    def lock(self, theirs):
        return nullcontext() if measures_nothing() else theirs(self)

    return replace(RECORDS, "lock", lock)
