"""Replace a method of Snakemake with ours."""

import sys
from collections.abc import Callable
from functools import wraps

# Modules and classes.
JOB = "snakemake.jobs", "Job"
SCHEDULER = "snakemake.scheduling.job_scheduler", "JobScheduler"
RECORDS = "snakemake.persistence", "PersistenceBase"
RECORDS_IN_FILES = "snakemake.persistence.file", "FilePersistence"


def replace(owner: tuple[str, str], name: str, ours: Callable) -> bool:
    """Replace the method with `ours(self, theirs, ...)`. `theirs` is Snakemake's own, or what replaced it before.

    Of several replacements from the same place only the last counts. Returns False, and does nothing, where there is
    no such method.
    """
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
