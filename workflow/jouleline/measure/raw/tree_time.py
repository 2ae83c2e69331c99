"""CPU time of all processes below one. Each counts from its begin, and none counts twice."""

from collections.abc import Collection

from jouleline.measure.raw.proc import cpu_time_ns, descendants, looks, pids


class TreeTime:
    """The CPU time below `root_pid` from now on, without the root itself and without the trees of `leave_out`.

    `discover` finds processes and `read` reads them. Some time is counted only when the parent has waited for the
    process: the time after its last reading, and all time of a process that ends before it is found. Missed is this
    part where no measured parent waits, because the parent ended first or ignores its children.
    """

    def __init__(self, root_pid: int, leave_out: Collection[int] = ()):
        self.root_pid, self.leave_out = root_pid, leave_out
        # CPU time by process: its total, and the part spent before the measurement.
        self.own_ns: dict[int, int] = {}
        self.before_ns: dict[int, int] = {}
        # By process and for the root: the time of the ended children that it has waited for, and the part of it that is
        # counted already or was spent before the measurement.
        self.waited_ns: dict[int, int] = {}
        self.counted_ns: dict[int, int] = {}
        self.parents: dict[int, int] = {}
        self.ended_ns = 0
        # A node has thousands of foreign processes, and one look at each costs some 20 us. So it looks only once.
        self.others: set[int] = set()
        # CPU time spent before the measurement is not part of it.
        self.discover()
        self.before_ns = {pid: cpu_time_ns(pid) or 0 for pid in self.own_ns}
        self.counted_ns = dict(self.waited_ns)

    def discover(self) -> None:
        """Find the new processes, and read what all have waited for."""
        there = pids()
        self.others &= there
        table = looks(there - self.others)
        # Search below the known processes too: a process whose parent has ended is no longer below the root.
        for pid in descendants([self.root_pid, *self.own_ns], self.leave_out, table):
            self.own_ns.setdefault(pid, 0)
        own = {self.root_pid, *self.own_ns}
        for pid in own & table.keys():
            self.parents[pid], self.waited_ns[pid] = table[pid].parent, table[pid].waited_ns
        self.others |= table.keys() - own

    def read(self, discover: bool) -> int:
        """CPU time since the beginning (ns)."""
        if discover:
            self.discover()
        # Read children before their parents, because a parent may show the time of a child that has gone. Read the
        # clocks after the parents' sums. So no process is counted both as alive and as waited for.
        for pid in reversed(list(self.own_ns)):
            used = cpu_time_ns(pid)
            if used is None:
                self._ended(pid)
            else:
                self.own_ns[pid] = used
        if discover:
            for pid in self.waited_ns:
                self._count_children(pid)
        alive_ns = sum(used - self.before_ns.get(pid, 0) for pid, used in self.own_ns.items())
        return self.ended_ns + alive_ns

    def _ended(self, pid: int) -> None:
        """Keep what is known of a process that has gone. If its parent waits for it, the parent shows its time too.
        Then only the time after the last reading is new."""
        self._count_children(pid)
        own, below = self.own_ns.pop(pid), self.counted_ns.pop(pid)
        self.ended_ns += max(own - self.before_ns.pop(pid, 0), 0)
        del self.waited_ns[pid]
        parent = self.parents.pop(pid)
        if parent in self.waited_ns:
            self.counted_ns[parent] = self.counted_ns.get(parent, 0) + own + below

    def _count_children(self, pid: int) -> None:
        """Count the time of ended children that a process shows beyond what is counted already."""
        counted = self.counted_ns.get(pid, 0)
        more = max(self.waited_ns[pid] - counted, 0)
        self.ended_ns += more
        self.counted_ns[pid] = counted + more
