"""A declared estimate for machines with no meter: CPU time of the measured processes times declared watts.

energy_j = idle_watts x elapsed seconds + watts_per_core x CPU seconds. It is not a measurement: the two watts
are the user's statement, every result says energy_source = estimate, and no uncertainty is given because none
is known.
"""

import os
import time

from jouleline.measure.meters.base import FAST, LaneSpec, Options
from jouleline.measure.raw.proc import cpu_time_ns, descendants, processes

DISCOVER_S = 0.2


class EstimateMeter:
    """One device per node: the measured processes, each with all the CPU time since it began.

    A process is found within 0.2 s of its start and read every period. What it uses after its last reading, and all
    that one uses which ends before it is found, is counted up to 0.2 s after its parent has waited for it. Missed is
    this part of a process that no measured parent waits for: because the parent ended first, or ignores its children.
    """

    name = "estimate"
    energy_source = "estimate"

    def __init__(self, options: Options):
        self.options = options
        self.start_ns = time.monotonic_ns()
        # CPU time by process: its own, and what of it was spent before the measurement.
        self.own_ns: dict[int, int] = {}
        self.before_ns: dict[int, int] = {}
        # By process and for the root: time of the ended children it has waited for, and what of that is counted
        # already (or was spent before the measurement).
        self.waited_ns: dict[int, int] = {}
        self.counted_ns: dict[int, int] = {}
        self.parents: dict[int, int] = {}
        self.ended_ns = 0
        self.discovered = 0.0
        self.devices = [
            {
                "index": 0,
                "uuid": f"estimate:{options.node}",
                "name": "CPU time x declared watts",
                "kind": "estimate",
                "role": "job",
                "counter": "continuous",
            }
        ]
        self.capabilities = {"energy_counter": True}
        self.facts = {"estimate": {"w_per_core": options.watts_per_core, "idle_w": options.idle_watts}}
        # CPU time spent before the measurement is not part of it.
        self._discover()
        self.before_ns = {pid: cpu_time_ns(pid) or 0 for pid in self.own_ns}
        self.counted_ns = dict(self.waited_ns)

    def _discover(self) -> None:
        self.discovered = time.monotonic()
        table = processes()
        for pid in descendants(self.options.root_pid, {os.getpid()}, table):
            self.own_ns.setdefault(pid, 0)
        for pid in (self.options.root_pid, *self.own_ns):
            if pid in table:
                self.parents[pid], self.waited_ns[pid] = table[pid].parent, table[pid].waited_ns

    def _ended(self, pid: int) -> None:
        """Keep what is known of a process that is gone. If its parent waits for it, its time shows there too, and then
        only what came after the last reading is more."""
        self._count_children(pid)
        own, below = self.own_ns.pop(pid), self.counted_ns.pop(pid)
        self.ended_ns += max(own - self.before_ns.pop(pid, 0), 0)
        del self.waited_ns[pid]
        parent = self.parents.pop(pid)
        if parent in self.waited_ns:
            self.counted_ns[parent] = self.counted_ns.get(parent, 0) + own + below

    def _count_children(self, pid: int) -> None:
        """Count what a process shows of its ended children beyond what is counted already."""
        counted = self.counted_ns.get(pid, 0)
        more = max(self.waited_ns[pid] - counted, 0)
        self.ended_ns += more
        self.counted_ns[pid] = counted + more

    def read(self) -> tuple[int, int, None]:
        """status, energy_mj, power_mw (never known)."""
        if fresh := time.monotonic() - self.discovered >= DISCOVER_S:
            self._discover()
        # Children before their parents, who may show them when they are gone; the clocks after the parents' sums: so
        # none is counted both as alive and as waited for.
        for pid in reversed(list(self.own_ns)):
            used = cpu_time_ns(pid)
            if used is None:
                self._ended(pid)
            else:
                self.own_ns[pid] = used
        if fresh:
            for pid in self.waited_ns:
                self._count_children(pid)
        alive_ns = sum(used - self.before_ns.get(pid, 0) for pid, used in self.own_ns.items())
        cpu_s = (self.ended_ns + alive_ns) * 1e-9
        elapsed_s = (time.monotonic_ns() - self.start_ns) * 1e-9
        joules = self.options.idle_watts * elapsed_s + self.options.watts_per_core * cpu_s
        return 0, round(joules * 1e3), None

    def lanes(self) -> list[LaneSpec]:
        columns = ("status", "energy_mj", "power_mw")
        return [LaneSpec("estimate", FAST, self.options.period_s, columns, {0: self.read})]

    def check(self) -> list[dict]:
        return []
