"""The measurements of the sidecar benchmark: accuracy, cost of marks, CPU and memory, slowdown, loss after a
kill."""

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fake_nvml.driver import FakeNode, Segment, sine, square  # noqa: E402
from fake_nvml.session import Session  # noqa: E402
from jouleline.energy.load import load_measurement  # noqa: E402
from jouleline.measure.raw import segments  # noqa: E402

PEERS = HERE / "bench_sidecar_peers.py"
COUNTS = {0.3: 24, 1.0: 30, 3.0: 16, 10.0: 7}
LONG_S = 60.0
GPUS = 8
PEER_KINDS = ("zeus", "zeus-best", "codecarbon", "codecarbon-best")


@dataclass
class Bench:
    """Where things are: a scratch folder, the fake libraries, the Python of the peers."""

    folder: Path
    libraries: Path
    peer_python: Path

    def node(self, name: str, gpus: int = GPUS) -> FakeNode:
        return FakeNode(self.folder / name, self.libraries, gpus)

    def peer_environment(self, node: FakeNode) -> dict[str, str]:
        # CodeCarbon asks for nvidia-smi before it believes in NVML.
        tools = self.folder / "bin"
        tools.mkdir(exist_ok=True)
        (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
        (tools / "nvidia-smi").chmod(0o755)
        return node.environment(PATH=f"{tools}:{os.environ['PATH']}")

    def peer(self, node: FakeNode, *arguments: str, **options) -> subprocess.Popen:
        command = [str(self.peer_python), str(PEERS), *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.peer_environment(node), text=True, stderr=subprocess.DEVNULL, **options
        )


def training_wave(rng: random.Random) -> Segment:
    """Power of a GPU in training: steps of 0.12 to 1.2 s between a low and a high level, some of them
    smooth."""
    low, high = rng.uniform(120, 320), rng.uniform(380, 680)
    period = rng.uniform(0.12, 1.2)
    if rng.random() < 0.25:
        return sine(0.0, low, high, period, rng.random())
    return square(0.0, low, high, period, rng.uniform(0.4, 0.9), rng.random())


def schedule(rng: random.Random) -> list[list]:
    """[[offset_s, length_s, name], ...]: lengths within 10 % of the nominal one, so that none fits the
    ticks."""
    spans, at = [], 0.0
    lengths = [nominal for nominal, count in COUNTS.items() for _ in range(count)]
    rng.shuffle(lengths)
    for nominal in lengths:
        length = nominal * rng.uniform(0.9, 1.1)
        spans.append([at, length, str(nominal)])
        at += length + rng.uniform(0.15, 0.25)
    return spans


def accuracy(bench: Bench, seed: int = 1) -> tuple[dict[str, dict[str, list[float]]], dict]:
    """Relative errors {tool: {nominal length: [error, ...]}} of all tools in one run on the same regions, and
    facts about our files {"bytes_per_row", "rows", "nulls"}."""
    rng = random.Random(seed)
    node = bench.node("accuracy")
    for gpu in node.gpus:
        gpu.waves(training_wave(rng))
        gpu.tick_phase_s, gpu.sensor_phase_s = rng.uniform(0, 0.1), rng.uniform(0, 0.1)
    spans = schedule(rng)
    plan = bench.folder / "schedule.json"
    plan.write_text(json.dumps({"gpus": GPUS, "spans": spans}))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    peers = {k: bench.peer(node, "regions", k, plan, bench.folder / f"{k}.json", **pipes) for k in PEER_KINDS}
    for peer in peers.values():
        # CodeCarbon says other things first.
        assert any(line.strip() == "ready" for line in iter(peer.stdout.readline, "")), "a peer did not start"
    session = Session(node, bench.folder / "accuracy-out")
    begin = time.monotonic() + 0.5
    for peer in peers.values():
        peer.stdin.write(f"{begin}\n")
        peer.stdin.flush()
    _mark_regions(session, spans, begin)
    for peer in peers.values():
        assert peer.wait(120) == 0, "a peer failed"
    rows = session.finish()
    ours = _our_errors(session, rows)
    nulls = {
        name.removeprefix("null "): len(ours.pop(name)) for name in list(ours) if name.startswith("null ")
    }
    errors = {"jouleline": ours}
    for kind in PEER_KINDS:
        errors[kind] = _peer_errors(node, json.loads((bench.folder / f"{kind}.json").read_text()))
    samples = session.out / "samples.parquet"
    count = pq.ParquetFile(samples).metadata.num_rows
    return errors, {"rows": count, "bytes_per_row": samples.stat().st_size / count, "nulls": nulls}


def _mark_regions(session: Session, spans: list[list], begin: float) -> None:
    """Mark the regions at their times; around them regions of 60 s, one after the other."""
    end = begin + spans[-1][0] + spans[-1][1]
    number = 0
    until = begin + LONG_S
    around = session.region(f"long:{number}")
    around.__enter__()
    for index, (offset, length, name) in enumerate(spans):
        if time.monotonic() > until and end - time.monotonic() > LONG_S:
            around.__exit__(None, None, None)
            number, until = number + 1, time.monotonic() + LONG_S
            around = session.region(f"long:{number}")
            around.__enter__()
        time.sleep(max(begin + offset - time.monotonic(), 0))
        with session.region(f"{name}:{index}"):
            time.sleep(max(begin + offset + length - time.monotonic(), 0))
    around.__exit__(None, None, None)


def _our_errors(session: Session, rows: list[dict]) -> dict[str, list[float]]:
    spans = {span.name: span for span in session.spans}
    gpus = {session.node.uuid(index): index for index in range(GPUS)}
    errors: dict[str, list[float]] = {}
    for row in rows:
        if row["device_uuid"] is None:
            continue
        span = spans[row["region"]]
        truth = session.node.true_energy_j(gpus[row["device_uuid"]], span.start_s, span.end_s)
        # A region that is declared invalid has no energy; those are counted apart.
        name = row["region"].split(":")[0]
        if row["energy_j"] is None:
            name, truth, row["energy_j"] = f"null {name}", 1.0, 1.0
        errors.setdefault(name, []).append(row["energy_j"] / truth - 1)
    return errors


def _peer_errors(node: FakeNode, results: list[list]) -> dict[str, list[float]]:
    errors: dict[str, list[float]] = {}
    epoch_s = node.epoch_ns * 1e-9
    for name, gpu, start, end, energy in results:
        truth = node.true_energy_j(gpu, start - epoch_s, end - epoch_s)
        errors.setdefault(name, []).append(energy / truth - 1)
    return errors


def rms(errors: list[float]) -> float:
    """Root of the mean square, as a fraction; nan for none."""
    return math.sqrt(statistics.fmean(e * e for e in errors)) if errors else math.nan


def marker_costs(bench: Bench) -> dict[str, list[float]]:
    """Microseconds of one mark (start or end of a region) in the process that trains."""
    program = (
        "import json, sys, time\n"
        "from jouleline.measure import region\n"
        "costs = []\n"
        "for _ in range(5000):\n"
        "    r = region('window')\n"
        "    for call in (r.__enter__, lambda: r.__exit__(None, None, None)):\n"
        "        begin = time.perf_counter(); call(); costs.append((time.perf_counter() - begin) * 1e6)\n"
        "    time.sleep(0.0005)\n"
        "json.dump(costs, open(sys.argv[1], 'w'))\n"
    )
    out = bench.folder / "marks.json"
    environment = os.environ | {"JOULELINE_MARKERS": str(bench.folder / "marks")}
    subprocess.run([sys.executable, "-c", program, str(out)], env=environment, check=True)
    costs = {"jouleline": json.loads(out.read_text())}
    node = bench.node("marks-node")
    for kind, count in (("zeus", 1000), ("codecarbon", 100)):
        assert bench.peer(node, "marks", kind, count, out, stdout=subprocess.DEVNULL).wait(300) == 0
        costs[kind] = json.loads(out.read_text())
    return costs


def cpu_s(pid: int) -> float:
    """CPU time of one process (s)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sidecar_cpu(bench: Bench, period_ms: int, seconds: float = 25.0) -> dict[str, float]:
    """CPU share of a core and memory (MiB) of the sidecar on 8 GPUs, and how late its readings are (us)."""
    node = bench.node(f"cpu-{period_ms}")
    session = Session(node, bench.folder / f"cpu-{period_ms}-out", "--period-ms", str(period_ms))
    time.sleep(2)
    before, begin = cpu_s(session.process.pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_s(session.process.pid) - before) / (time.monotonic() - begin)
    assert session.stop() == 0
    meta = json.loads((session.out / "meta.json").read_text())["sidecar"]
    late = np.concatenate([s.fast["late_us"] for s in load_measurement(session.out).nodes[0].devices])
    return {"cpu_share": share, "rss_mib": meta["peak_rss_mib"], "late_median_us": float(np.median(late))}


def power_monitor_cpu(
    bench: Bench, domains: str, period_s: float = 0.05, seconds: float = 25.0
) -> float | None:
    """CPU share of Zeus' PowerMonitor on 8 GPUs; None when it does not start (it gives its processes 10
    s)."""
    out = bench.folder / "monitor.json"
    for _ in range(3):
        node = bench.node("monitor")
        process = bench.peer(node, "monitor", domains, period_s, seconds, out, stdout=subprocess.DEVNULL)
        if process.wait(120) == 0:
            return json.loads(out.read_text())["cpu_share"]
    return None


def busy_s() -> float:
    """CPU time that all processes of the machine have used (s)."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def slowdown(bench: Bench, pairs: int = 40, block_s: float = 5.0, settle_s: float = 0.15) -> dict[str, float]:
    """Slowdown of a busy trainer by the sidecar, as fractions: wall time of a step and its CPU time, mean and upper
    95 % limit of each; and how many cores other programs kept busy meanwhile (the wall time needs a quiet machine).

    The trainer never rests, for a core that was idle is of another speed. The sidecar runs and is stopped (SIGSTOP) by
    turns, in random order within a pair and in the opposite order in the next: what drifts over the four blocks goes
    from their mean. Steps count when the signal is long over. A block is longer than the 4 s after which the sidecar
    writes, so that what it does seldom is in every one of its blocks, and none stands out for it.
    """
    node = bench.node("slowdown")
    session = Session(node, bench.folder / "slowdown-out")
    rng = random.Random(2)
    a = np.random.default_rng(0).normal(size=(64, 64))

    def train(seconds: float) -> tuple[float, float]:
        steps, begin, cpu = 0, time.perf_counter(), time.thread_time()
        while time.perf_counter() - begin < seconds:
            np.tanh(a @ a)
            steps += 1
        return (time.perf_counter() - begin) / steps, (time.thread_time() - cpu) / steps

    ratios = []
    busy, begin, own = busy_s(), time.monotonic(), time.process_time() + cpu_s(session.process.pid)
    for _ in range(pairs // 2):
        order = rng.sample([True, False], 2)
        times = {True: [], False: []}
        for running in (*order, *order[::-1]):
            session.process.send_signal(signal.SIGCONT if running else signal.SIGSTOP)
            train(settle_s)
            times[running].append(np.log(train(block_s)))
        ratios.append(np.mean(times[True], axis=0) - np.mean(times[False], axis=0))
    own = time.process_time() + cpu_s(session.process.pid) - own
    others = (busy_s() - busy - own) / (time.monotonic() - begin)
    session.process.send_signal(signal.SIGCONT)
    session.stop()
    found = {"others_cores": round(others, 3)}
    draws = np.random.default_rng(2).integers(len(ratios), size=(2000, len(ratios)))
    for name, values in zip(("wall", "cpu"), np.array(ratios).T):
        values = _winsorised(values)
        found[f"{name}_mean"] = math.expm1(values.mean())
        found[f"{name}_upper95"] = math.expm1(np.quantile(values[draws].mean(axis=1), 0.975))
    return found


def _winsorised(values: np.ndarray) -> np.ndarray:
    """Values further than 3 robust standard deviations from the median are set there: the host takes a core away now
    and then, which is no doing of the sidecar's. Every value has all that the sidecar does."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    reach = 3 * (high - low) / 1.349
    return np.clip(values, median - reach, median + reach)


def kills(bench: Bench, count: int = 100, at_once: int = 10, longest_s: float = 11.0) -> dict[str, float]:
    """Kill sidecars at random times; what cannot be read and how much is lost at most (s)."""
    rng = random.Random(3)
    unreadable, losses = 0, []
    for first in range(0, count, at_once):
        node = bench.node(f"kill-{first}", 2)
        numbers = range(first, min(first + at_once, count))
        sessions = [Session(node, bench.folder / f"kill-{n}-out", idle_s=0) for n in numbers]
        due = sorted(
            ((time.monotonic() + rng.uniform(0.05, longest_s), s) for s in sessions), key=lambda x: x[0]
        )
        for when, session in due:
            time.sleep(max(when - time.monotonic(), 0))
            killed_us = time.monotonic() * 1e6
            session.kill()
            for part in segments.paths(session.out):
                try:
                    segments.read(part)
                except (OSError, ValueError):
                    unreadable += 1
            measured = load_measurement(session.out)
            started_us = measured.nodes[0].meta["start_us"]
            seen = [s.fast["t_us"][-1] for s in measured.nodes[0].devices if len(s.fast["t_us"])]
            losses.append((killed_us - (min(seen) if seen else started_us)) * 1e-6)
    return {"count": count, "unreadable": unreadable, "longest_loss_s": float(max(losses))}
