"""Snakemake's locks of a folder, one for each snakemake in it.

Snakemake 9.27 takes away the locks of all as soon as one ends. After a plan, or another campaign in the same checkout,
a campaign that still runs could be started a second time, and would be measured twice side by side.
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

MODULE = "snakemake.persistence.file"


def keep_others() -> bool:
    """Let each snakemake take away its own locks alone; `--unlock` still takes all. False for another Snakemake."""
    persistence = getattr(sys.modules.get(MODULE), "FilePersistence", None)
    if not hasattr(persistence, "_delete_locks"):
        return False
    if not hasattr(persistence, "jouleline_all_locks"):
        persistence.jouleline_all_locks = persistence._delete_locks
        persistence.cleanup_locks = persistence.jouleline_all_locks
        persistence._delete_locks = _delete_own
    return True


def none_where(measures_nothing: Callable[[], bool]) -> bool:
    """Take no lock, and wait for none, where that is so when the jobs are known. False for another Snakemake."""
    persistence = getattr(sys.modules.get(MODULE), "FilePersistence", None)
    if not hasattr(persistence, "lock"):
        return False
    if not hasattr(persistence, "jouleline_lock"):
        persistence.jouleline_lock = persistence.lock
    persistence.jouleline_free = staticmethod(measures_nothing)
    persistence.lock = _lock
    return True


def _lock(self) -> AbstractContextManager:
    return nullcontext() if self.jouleline_free() else self.jouleline_lock()


def _delete_own(self) -> None:
    for path in self._lockfile.values():
        with suppress(FileNotFoundError):
            os.remove(path)
    self._lockfile.clear()
