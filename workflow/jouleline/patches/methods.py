"""Ours in the place of a method of Snakemake's."""

import sys
from collections.abc import Callable
from functools import wraps

# Modules and classes.
JOB = "snakemake.jobs", "Job"
SCHEDULER = "snakemake.scheduling.job_scheduler", "JobScheduler"
RECORDS = "snakemake.persistence", "PersistenceBase"
RECORDS_IN_FILES = "snakemake.persistence.file", "FilePersistence"


def replace(owner: tuple[str, str], name: str, ours: Callable) -> bool:
    """Let the method be `ours(self, theirs, ...)`, where `theirs` is Snakemake's own, or what replaced it before; of
    several from the same place the last counts. False, and nothing done, where there is no such method."""
    module, cls = owner
    place = getattr(sys.modules.get(module), cls, None)
    if not hasattr(place, name):
        return False
    found = getattr(place, name)
    own = getattr(found, "jouleline_own", found)
    every = {**getattr(found, "jouleline_every", {}), ours.__qualname__: ours}
    method = own
    for each in every.values():
        method = _around(method, each)
    method.jouleline_own, method.jouleline_every = own, every
    setattr(place, name, method)
    return True


def _around(theirs: Callable, ours: Callable) -> Callable:
    @wraps(theirs)
    def method(self, *args, **kwargs):
        return ours(self, theirs, *args, **kwargs)

    return method
