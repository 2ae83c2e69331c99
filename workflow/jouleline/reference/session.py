"""One piece of a campaign: measure through the pipeline for a given time, and stop without a half run."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from jouleline.campaign import config
from jouleline.campaign.grid import dataset_name
from jouleline.files import read_json
from jouleline.measure.node.device_lock import DEFAULT, VARIABLE
from jouleline.measure.node.ranks import die_with_parent

POLL_S, SAY_S, SAVE_S = 1.0, 20.0, 120.0
# How long a run takes to end after a hard stop; and how long the stop, the verdicts and the packing take at the end.
HARD_S, CLOSING_S = 15.0, 45.0
# If the first runs of a campaign all fail, the rest of the time is not used.
FAILURES = 3


@dataclass
class Session:
    """`until` is on CLOCK_MONOTONIC (s). `overlap` runs are started at a time, and one of them has the devices. With
    `keep`, runs measured by other code are kept. `save` is called now and then while runs are measured."""

    root: Path
    campaign: config.Campaign
    until: float
    overlap: int
    keep: bool = False
    save: Callable[[], None] = lambda: None
    known: set[str] = field(default_factory=set)
    asked_to_stop: bool = False

    def __post_init__(self):
        self.results = self.root / self.campaign.results
        self.log = self.results / "logs" / "reference.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.known = {path.parent.name for path in self.finished()}
        self.began = time.time()

    @property
    def left_s(self) -> float:
        """Seconds until the measuring must be over."""
        return self.until - CLOSING_S - time.monotonic()

    @property
    def advanced(self) -> bool:
        """Whether a run was finished here, or none is left."""
        done = len(self.finished())
        return done > len(self.known) or done == len(self.campaign.runs)

    def finished(self) -> list[Path]:
        return sorted(self.results.glob("runs/*/run.json"))

    def stop(self, *_signal) -> None:
        """Start no other run, after a signal. Running ones may end."""
        print("asked to stop: no other run starts", flush=True)
        self.asked_to_stop = True

    def check(self, minutes: float) -> None:
        """Check the hardware, once per campaign. A failed check costs the campaign nothing else."""
        out = self.results / "hardware"
        if (out / "report.md").exists():
            return
        command = [sys.executable, "scripts/check_hardware.py", "--out", str(out)]
        facts = out / "facts.json"
        whole = facts.exists() and read_json(facts)["duration_s"] is not None
        command += ["--report-only"] if whole else ["--minutes", f"{minutes:g}"]
        try:
            failed = subprocess.run(command, cwd=self.root, timeout=max(self.left_s, 1)).returncode
        except subprocess.TimeoutExpired:
            failed = True
        if failed:
            print("warning: the check of the hardware did not end well; measuring goes on", flush=True)

    def prepare(self) -> bool:
        """Data sets, calibration and idle power. Returns whether the data sets are there; runs need nothing else."""
        folder = self.campaign.results
        data = sorted({f"{folder}/dataset/{dataset_name(run.row)}.parquet" for run in self.campaign.runs})
        targets = [*data, f"{folder}/node/calibration.json", f"{folder}/node/idle.json"]
        if not self._missing(targets):
            return True
        print("preparing data sets, calibration and idle power", flush=True)
        process = self._snakemake(targets, 1)
        while process.poll() is None and self.left_s > 0 and not self.asked_to_stop:
            time.sleep(POLL_S)
        self._end(process)
        missing = self._missing(targets)
        if missing:
            print(f"error: no {', '.join(missing)}; see the end of {self.log}", flush=True)
        return not self._missing(data)

    def _missing(self, targets: Sequence[str]) -> list[str]:
        return [target for target in targets if not (self.root / target).exists()]

    def measure(self) -> None:
        """Measure runs in the campaign's order, until all are done or no other one can end in time."""
        process = self._snakemake(["measurements"], self.overlap)
        begin, next_say, stopping = time.monotonic(), 0.0, False
        next_save = begin + SAVE_S
        while process.poll() is None and self.left_s > 0:
            time.sleep(POLL_S)
            runs = self.finished()
            if not stopping and (
                self.asked_to_stop or self.left_s < self._longest_s(runs) or self._hopeless(runs)
            ):
                # Snakemake lets running jobs end and starts no other.
                process.send_signal(signal.SIGTERM)
                stopping = True
            if time.monotonic() > next_say:
                self._say(len(runs), time.monotonic() - begin)
                next_say = time.monotonic() + SAY_S
            if time.monotonic() > next_save:
                self.save()
                next_save = time.monotonic() + SAVE_S
        self._end(process)
        self._say(len(self.finished()), time.monotonic() - begin)

    def _snakemake(self, targets: Sequence[str], overlap: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", "--config", f"campaign={self.campaign.name}"]
        command += ["--cores", "all", "--resources", f"measuring={overlap}", "--nolock"]
        command += ["--rerun-triggers", "mtime"] if self.keep else []
        command += ["--", *targets]
        environment = os.environ | {VARIABLE: os.environ.get(VARIABLE) or str(DEFAULT)}
        # If this process is killed at its limit, Snakemake must not go on beside the next piece.
        together = partial(die_with_parent, os.getpid())
        options = {"process_group": 0, "preexec_fn": together}
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=log, stderr=log, **options
            )

    def _end(self, process: subprocess.Popen) -> int:
        """Stop what still runs when the time is up. A run that is cut leaves nothing that counts."""
        for number in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                print(f"{signal.Signals(number).name} to what still runs", flush=True)
                os.killpg(process.pid, number)
                try:
                    process.wait(HARD_S)
                except subprocess.TimeoutExpired:
                    continue
        return process.wait()

    def _longest_s(self, runs: list[Path]) -> float:
        """How long a run that starts now may take: as long as the longest of the last ones here, with their wait for
        the devices. Before the first run, the protocol gives a guess."""
        fresh = sorted((path for path in runs if path.parent.name not in self.known), key=_age)[-10:]
        walls = [read_json(path)["wall_s"] for path in fresh]
        protocol = self.campaign.protocol
        guess = self.overlap * (3 * protocol["window_s"] + 2 * protocol["idle_s"] + 15)
        return (max(walls) if walls else guess) + 2 * POLL_S

    def _hopeless(self, runs: list[Path]) -> bool:
        done = any(path.parent.name not in self.known for path in runs)
        return not done and len(self.failed()) >= FAILURES

    def failed(self) -> list[Path]:
        """Records of the runs that failed in this piece, the newest first."""
        records = self.results.glob("runs/*/run.failed.json")
        return sorted((path for path in records if _age(path) >= self.began), key=_age, reverse=True)

    def _say(self, done: int, spent_s: float) -> None:
        total, new = len(self.campaign.runs), done - len(self.known)
        pace = (
            f", {spent_s / new:.1f} s a run, {(total - done) * spent_s / new / 60:.1f} min for all"
            if new
            else ""
        )
        print(f"{done} of {total} runs{pace}; {max(self.left_s, 0):.0f} s left here", flush=True)


def _age(path: Path) -> float:
    return path.stat().st_mtime


def summary(session: Session) -> list[str]:
    """A summary of the finished runs: verdicts with reasons, repeats, uncertainty, and where a run's time goes."""
    from jouleline.energy.integrate import runs_regions

    records = {path.parent.name: read_json(path) for path in session.finished()}
    if not records:
        return ["no run is finished", *_failures(session)]
    rows = runs_regions(session.results / "runs", records)
    windows = [row for row in rows if row["region"] == "window" and row["device_uuid"] is None]
    verdicts = Counter(f"{row['verdict']} {row['reasons'] or ''}".strip() for row in windows)
    edges = [
        row["energy_edge_u_j"] / row["energy_j"]
        for row in windows
        if row["energy_j"] and row["energy_edge_u_j"]
    ]
    blocks = Counter(record["row"]["replicate"] for record in records.values())
    lines = [f"replicate {number}: {count} runs" for number, count in sorted(blocks.items())]
    lines += [f"{count} x {verdict}" for verdict, count in verdicts.most_common()]
    lines += [f"edge uncertainty of a window: median {median(edges):.2%}"] if edges else []
    return lines + _failures(session) + _costs([run for run in records.values() if run["training"]])


def _failures(session: Session) -> list[str]:
    """How many runs failed in this piece, and why the last ones did."""
    failed = session.failed()
    reasons = [f"{path.parent.name}: {read_json(path)['detail']}" for path in failed[:FAILURES]]
    return [f"{len(failed)} runs failed here", *reasons] if failed else []


def _costs(records: list[dict]) -> list[str]:
    """Median seconds of each part of a run."""
    names = dict.fromkeys(name for record in records for name in record["training"]["startup_s"])
    parts = {name: [record["training"]["startup_s"].get(name, 0) for record in records] for name in names}
    parts["warm-up"] = [sum(record["training"]["warmup_step_times_s"]) for record in records]
    parts["window"] = [record["training"]["time_s"] for record in records]
    parts["all"] = [record["wall_s"] for record in records]
    return (
        ["median s of a run: " + ", ".join(f"{name} {median(v):.1f}" for name, v in parts.items())]
        if records
        else []
    )
