"""A declared estimate for machines with no meter: CPU time of the measured processes times declared watts.

energy_j = idle_watts x elapsed seconds + watts_per_core x CPU seconds. It is not a measurement: the two watts
are the user's statement, every result says energy_source = estimate, and no uncertainty is given because none
is known.
"""

import os
import time

from jouleline.measure.meters import FAST, LaneSpec, Options

DISCOVER_S = 0.2


def cpu_time_ns(pid: int) -> int | None:
    """CPU time of a process with all its threads, from its kernel clock (Linux: ~pid << 3 | CPUCLOCK_SCHED).

    It counts in ns, where /proc/<pid>/stat counts in 10 ms. None when the process is gone.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


def descendants(root_pid: int, leave_out: set[int]) -> set[int]:
    """Process ids below `root_pid` (itself not counted); the trees of `leave_out` are left out."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as handle:
                stat = handle.read()
        except OSError:
            continue
        # The command in parentheses may itself hold blanks and parentheses.
        parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found, stack = set(), [root_pid]
    while stack:
        for child in children.get(stack.pop(), ()):
            if child not in leave_out and child not in found:
                found.add(child)
                stack.append(child)
    return found


class EstimateMeter:
    """One device per node: the measured processes. A process is found within 0.2 s of its start, with all the
    CPU time it has used; what a process uses after its last reading (one period) is missed."""

    name = "estimate"
    energy_source = "estimate"

    def __init__(self, options: Options):
        self.options = options
        self.start_ns = time.monotonic_ns()
        self.gone_ns = 0
        self.last_ns: dict[int, int] = {}
        self.before_ns: dict[int, int] = {}
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
        self.before_ns = {pid: cpu_time_ns(pid) or 0 for pid in self.last_ns}

    def _discover(self) -> None:
        self.discovered = time.monotonic()
        for pid in descendants(self.options.root_pid, {os.getpid()}):
            self.last_ns.setdefault(pid, 0)

    def read(self) -> tuple[int, int, None]:
        """status, energy_mj, power_mw (never known)."""
        if time.monotonic() - self.discovered >= DISCOVER_S:
            self._discover()
        for pid in list(self.last_ns):
            used = cpu_time_ns(pid)
            if used is None:
                self.gone_ns += max(self.last_ns.pop(pid) - self.before_ns.pop(pid, 0), 0)
            else:
                self.last_ns[pid] = used
        alive_ns = sum(used - self.before_ns.get(pid, 0) for pid, used in self.last_ns.items())
        cpu_s = (self.gone_ns + alive_ns) * 1e-9
        elapsed_s = (time.monotonic_ns() - self.start_ns) * 1e-9
        joules = self.options.idle_watts * elapsed_s + self.options.watts_per_core * cpu_s
        return 0, round(joules * 1e3), None

    def lanes(self) -> list[LaneSpec]:
        columns = ("status", "energy_mj", "power_mw")
        return [LaneSpec("estimate", FAST, self.options.period_s, columns, {0: self.read})]

    def check(self) -> list[dict]:
        return []

    def close(self) -> None:
        pass
