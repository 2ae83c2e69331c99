"""Who else works on the machine: how much CPU time processes outside the measured tree use, with any meter.

RAPL's counters include the energy of these processes. And what is measured may have waited for a CPU, even on GPUs.
"""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from jouleline.measure.raw.proc import busy_ns, cpu_time_ns
from jouleline.measure.raw.tree_time import TreeTime

# The file of the kernel's count. A container may have the host's in another place.
STAT_ENVIRONMENT = "JOULELINE_PROC_STAT"
STAT = "/proc/stat"
# How often to look, and at most for which share of the time. How much of the machine others may use. How long a
# stretch of their load lasts before it is reported.
LOOK_NS, LOOK_SHARE = 2_000_000_000, 500
OTHERS_SHARE = 0.1
TELL_NS = 60_000_000_000


class Load(NamedTuple):
    """The time of a look (monotonic clock), and the CPU time of the machine and of what is measured; ns."""

    t_ns: int
    busy_ns: int | None
    own_ns: int


class Others:
    """The load of others from now on: processes outside the tree below `root_pid`."""

    def __init__(self, root_pid: int):
        self.root_pid, self.tree = root_pid, TreeTime(root_pid)
        self.stat = Path(os.environ.get(STAT_ENVIRONMENT, STAT))
        self.seen = self.begin = self._now()
        self.look_ns = LOOK_NS

    def look(self, last: bool = False) -> list[dict[str, Any]]:
        """An event for each stretch in which others used much of the machine. It comes when the stretch has ended or
        become long, and at the `last` look."""
        began_ns = time.monotonic_ns()
        if began_ns - self.seen.t_ns < self.look_ns and not last:
            return []
        before, self.seen = self.seen, self._now()
        # A look at thousands of processes takes a while.
        self.look_ns = max(LOOK_NS, LOOK_SHARE * (time.monotonic_ns() - began_ns))
        if not self._much(before, self.seen):
            return self._told(before)
        return self._told(self.seen) if last or self.seen.t_ns - self.begin.t_ns > TELL_NS else []

    def _told(self, end: Load) -> list[dict[str, Any]]:
        """The stretch from its begin to `end`, if it has a length. The next one begins now."""
        begin, self.begin = self.begin, self.seen
        if begin.t_ns == end.t_ns:
            return []
        times = {"start_us": begin.t_ns // 1000, "end_us": end.t_ns // 1000}
        return [{"kind": "foreign_load", "cores": round(_cores(begin, end), 2), **times}]

    def _much(self, begin: Load, end: Load) -> bool:
        return _cores(begin, end) > OTHERS_SHARE * (os.cpu_count() or 1)

    def _now(self) -> Load:
        return Load(time.monotonic_ns(), busy_ns(stat=self.stat), self._own_ns())

    def _own_ns(self) -> int:
        """CPU time of what is measured, with the root and the sidecar."""
        return self.tree.read(discover=True) + (cpu_time_ns(self.root_pid) or 0)


def _cores(begin: Load, end: Load) -> float:
    """The mean number of CPUs that others used; 0 where the kernel does not say."""
    if begin.busy_ns is None or end.busy_ns is None or end.t_ns == begin.t_ns:
        return 0.0
    return ((end.busy_ns - begin.busy_ns) - (end.own_ns - begin.own_ns)) / (end.t_ns - begin.t_ns)
