"""Peers of the sidecar on the fake GPUs; runs in the benchmark's own environment (zeus, codecarbon).

    bench_sidecar_peers.py regions zeus|zeus-best|codecarbon|codecarbon-best SCHEDULE OUT
    bench_sidecar_peers.py marks zeus|codecarbon COUNT OUT
    bench_sidecar_peers.py monitor all|device_instant PERIOD_S SECONDS OUT

SCHEDULE is JSON: {"gpus": n, "spans": [[offset_s, length_s, name], ...]}; a peer prints "ready" and reads
from stdin the time on CLOCK_MONOTONIC that the offsets count from. The time of an edge is the middle of the
peer's own call, so a slow call is not counted against its accuracy.
"""

import contextlib
import json
import logging
import os
import sys
import time
from pathlib import Path

KWH_J = 3.6e6
logging.disable(logging.CRITICAL)


class Zeus:
    """ZeusMonitor on all GPUs. `best` also approximates windows shorter than a counter update."""

    def __init__(self, gpus: int, best: bool):
        from zeus.monitor import ZeusMonitor

        self.monitor = ZeusMonitor(gpu_indices=list(range(gpus)), cpu_indices=[], approx_instant_energy=best)

    def start(self) -> None:
        self.monitor.begin_window("w", sync_execution=False)

    def stop(self) -> dict[int, float]:
        return dict(self.monitor.end_window("w", sync_execution=False).gpu_energy)


class CodeCarbon:
    """A tracker on one GPU (it reports the sum of its GPUs). `best` samples once a second instead of every 15
    s."""

    def __init__(self, gpu: int, best: bool):
        from codecarbon import OfflineEmissionsTracker

        self.tracker = OfflineEmissionsTracker(
            country_iso_code="USA", gpu_ids=[gpu], measure_power_secs=1 if best else 15, save_to_file=False,
            allow_multiple_runs=True, log_level="critical",
        )  # fmt: skip
        self.gpu, self.number = gpu, 0
        # The first task looks for the hardware, which takes seconds.
        self.start(), self.stop()

    def start(self) -> None:
        self.number += 1
        self.tracker.start_task(f"t{self.number}")

    def stop(self) -> dict[int, float]:
        return {self.gpu: self.tracker.stop_task(f"t{self.number}").gpu_energy * KWH_J}


def make(kind: str, gpus: int) -> list:
    name, _, best = kind.partition("-")
    if name == "zeus":
        return [Zeus(gpus, best == "best")]
    # One tracker per GPU; four are enough for its statistics, and each costs a millisecond per edge.
    return [CodeCarbon(gpu, best == "best") for gpu in range(min(gpus, 4))]


def timed(call) -> tuple[float, object]:
    before = time.monotonic()
    result = call()
    return 0.5 * (before + time.monotonic()), result


def measure_regions(kind: str, schedule: Path, out: Path) -> None:
    plan = json.loads(schedule.read_text())
    tools = make(kind, plan["gpus"])
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    results = []
    for offset_s, length_s, name in plan["spans"]:
        start_s = begin + offset_s
        if start_s < time.monotonic():
            continue
        time.sleep(start_s - time.monotonic())
        starts = [timed(tool.start)[0] for tool in tools]
        time.sleep(max(start_s + length_s - time.monotonic(), 0))
        for tool, started in zip(tools, starts):
            ended, energies = timed(tool.stop)
            results += [[name, gpu, started, ended, energy] for gpu, energy in energies.items()]
    out.write_text(json.dumps(results))


def measure_marks(kind: str, count: int, out: Path) -> None:
    """Cost of one mark (start or stop) in microseconds."""
    tool = make(kind, 8)[0]
    costs = []
    for _ in range(count):
        for call in (tool.start, tool.stop):
            before = time.perf_counter()
            call()
            costs.append((time.perf_counter() - before) * 1e6)
    out.write_text(json.dumps(costs))


def cpu_s(pid: int) -> float:
    """CPU time of a process and of all below it."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0.0
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total = (int(fields[11]) + int(fields[12])) / tick
        for child in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(cpu_s(int(number)) for number in child.read_text().split())
    return total


def measure_monitor(domains: str, period_s: float, seconds: float, out: Path) -> None:
    """CPU of Zeus' PowerMonitor and its processes (one per power domain), as a share of a core."""
    from zeus.monitor import PowerMonitor

    wanted = None if domains == "all" else [domains]
    monitor = PowerMonitor(gpu_indices=list(range(8)), update_period=period_s, power_domains=wanted)
    time.sleep(5)
    before, begin = cpu_s(os.getpid()), time.monotonic()
    time.sleep(seconds)
    share = (cpu_s(os.getpid()) - before) / (time.monotonic() - begin)
    out.write_text(json.dumps({"cpu_share": share}))
    del monitor


if __name__ == "__main__":
    task, out = sys.argv[1], Path(sys.argv[-1])
    if task == "regions":
        measure_regions(sys.argv[2], Path(sys.argv[3]), out)
    elif task == "marks":
        measure_marks(sys.argv[2], int(sys.argv[3]), out)
    else:
        measure_monitor(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), out)
