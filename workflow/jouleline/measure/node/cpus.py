"""The CPUs of a job: those it was given, and what other processes take of them."""

import os
import time
from collections.abc import Collection
from pathlib import Path

from jouleline.measure.raw.proc import busy_ns, cpu_time_ns, descendants

# They bind the threads of every process to the same few CPUs, at the import of torch. Ranks are many processes.
BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET")


def unbind() -> set[int]:
    """The CPUs of this process, before torch is imported; removes what would bind its threads to some of them."""
    for name in BINDING:
        os.environ.pop(name, None)
    return os.sched_getaffinity(0)


class ForeignLoad:
    """What processes outside of the tree below `root_pid` use of `cpus`, from the start on."""

    def __init__(self, root_pid: int, cpus: Collection[int], stat: Path = Path("/proc/stat")):
        self.root_pid, self.cpus, self.stat = root_pid, cpus, stat
        self.begin = self._now()

    def cores(self) -> float | None:
        """CPUs' worth of foreign time since the start, a mean; None where the kernel does not say."""
        now = self._now()
        if self.begin is None or now is None:
            return None
        elapsed_ns, busy_ns, own_ns = (after - before for before, after in zip(self.begin, now, strict=True))
        return round(max(busy_ns - own_ns, 0) / elapsed_ns, 3)

    def _now(self) -> tuple[int, int, int] | None:
        """(clock, time that `cpus` were busy, time that the tree used), all in ns."""
        busy = busy_ns(self.cpus, self.stat)
        own = [cpu_time_ns(pid) or 0 for pid in (self.root_pid, *descendants([self.root_pid]))]
        return None if busy is None else (time.monotonic_ns(), busy, sum(own))
