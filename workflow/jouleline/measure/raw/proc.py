"""What the kernel says about a process. Only this module reads /proc/PID/stat (proc(5)).

It is in this room because the energy of the estimate is made of these numbers.
"""

import ctypes
import os
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1  # prctl(2)
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """A process: its parent, the CPU time (ns, in ticks of 10 ms) of the ended children that it has waited for, when it
    began (ns since the machine started, without jumps of the clock), and whether it is a zombie (it has ended, and
    nobody has waited for it)."""

    parent: int
    waited_ns: int
    start_ns: int
    ended: bool


def look(pid: int | str) -> Process | None:
    """The process `pid` (also "self"); None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            stat = handle.read()
    except OSError:
        return None
    # The command in parentheses may contain blanks and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    waited = int(fields[13]) + int(fields[14])
    return Process(int(fields[1]), waited * TICK_NS, int(fields[19]) * TICK_NS, fields[0] in (b"Z", b"X"))


def alive(pid: int | str) -> bool:
    """Whether the process is there and has not ended."""
    process = look(pid)
    return process is not None and not process.ended


def age_s(pid: int | str = "self") -> float | None:
    """Seconds since the process began; None where there is none."""
    process = look(pid)
    return None if process is None else time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_ns * 1e-9


def cpu_time_ns(pid: int) -> int | None:
    """CPU time of a process with all its threads, from its kernel clock (Linux: ~pid << 3 | CPUCLOCK_SCHED).

    It counts in ns; /proc/PID/stat counts in 10 ms. None when the process is gone.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


def pids() -> set[int]:
    """Ids of every process of this machine (or container)."""
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}


def looks(among: Iterable[int]) -> dict[int, Process]:
    """The processes that are there, by their ids."""
    found = ((pid, look(pid)) for pid in among)
    return {pid: process for pid, process in found if process is not None}


def descendants(
    roots: Collection[int], leave_out: Collection[int] = (), table: Mapping[int, Process] | None = None
) -> list[int]:
    """Ids of the processes below `roots`, parents first, without the trees of `leave_out`."""
    children: dict[int, list[int]] = {}
    for pid, process in (looks(pids()) if table is None else table).items():
        children.setdefault(process.parent, []).append(pid)
    found, stack = {}, [*roots]
    while stack:
        for child in children.get(stack.pop(), ()):
            if child not in leave_out and child not in found:
                found[child] = None
                stack.append(child)
    return list(found)


def busy_ns(cpus: Collection[int] | None = None, stat: Path = Path("/proc/stat")) -> int | None:
    """Time (ns, in ticks of 10 ms) in which `cpus` (None: all) were not idle, with a hypervisor's share. None where
    unknown."""
    try:
        lines = [line.split() for line in stat.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    wanted = {"cpu"} if cpus is None else {f"cpu{number}" for number in cpus}
    # proc_stat(5): user nice system idle iowait irq softirq steal; guest time is in user.
    busy = [sum(map(int, line[1:4] + line[6:9])) for line in lines if line and line[0] in wanted]
    return sum(busy) * TICK_NS if len(busy) == len(wanted) else None


def peak_rss_mib() -> float | None:
    """Peak memory of this process (VmHWM; ru_maxrss would count what was before exec)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return None


def signal_at_parents_end(number: int) -> None:
    """Let the kernel send this process a signal when the thread that started it ends. Raises OSError or AttributeError
    where the kernel cannot."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
