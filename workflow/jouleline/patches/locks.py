"""Snakemake's locks of a folder: one for each snakemake in it."""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress

from jouleline.patches.methods import RECORDS, RECORDS_IN_FILES, replace


def keep_those_of_others() -> bool:
    """Let each snakemake remove only its own locks. `--unlock` still removes all.

    Snakemake removes all locks of a folder as soon as one snakemake in it ends. After a plan, or after another
    campaign in the same checkout, a running campaign could be started a second time. Both would then measure side
    by side.
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
    """Take no lock, and wait for none, where `measures_nothing` holds once the jobs are known."""

    def lock(self, theirs):
        return nullcontext() if measures_nothing() else theirs(self)

    return replace(RECORDS, "lock", lock)
