"""A sidecar process on a fake node, with regions marked by the test itself."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fake_nvml.driver import FakeNode
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.measure.meters.base import FAST
from jouleline.measure.raw.markers import END, START, MarkerFile, encode_name
from jouleline.measure.raw.samples import read_samples


@dataclass
class Span:
    """A region as the test marked it, in seconds of the node's clock."""

    name: str
    start_s: float
    end_s: float


class Session:
    """Starts the sidecar and waits until it is ready; `finish` stops it and returns the regions table's
    rows."""

    def __init__(
        self, node: FakeNode, out: Path, *arguments: str, idle_s=0.3, preload_os=False, **environment: str
    ):
        self.node, self.out = node, out
        self.spans: list[Span] = []
        command = [
            sys.executable,
            "-m",
            "jouleline.measure.sidecar",
            "--out",
            str(out),
            "--meter",
            "nvml",
        ]
        command += ["--root-pid", str(os.getpid()), "--idle-s", str(idle_s), *arguments]
        self.process = subprocess.Popen(
            command, env=node.environment(preload_os, **environment), stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 30
        while not (out / "ready.json").exists() and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        self.ready = (out / "ready.json").exists()
        self.markers = MarkerFile(str(out / "markers"), 0) if self.ready else None
        self.number = 0

    @contextlib.contextmanager
    def region(self, name: str):
        """Mark a region around the body."""
        self.number += 1
        number, start_ns = self.number, time.monotonic_ns()
        self.markers.write(START, start_ns, number, 0, encode_name(name))
        yield
        end_ns = time.monotonic_ns()
        self.markers.write(END, end_ns, number, 0, encode_name(name))
        start_s, end_s = ((t - self.node.epoch_ns) * 1e-9 for t in (start_ns, end_ns))
        self.spans.append(Span(name, start_s, end_s))

    def stop(self, limit_s: float = 20) -> int:
        """Stop by the stop file; the exit code."""
        (self.out / "stop").touch()
        return self.process.wait(limit_s)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def rows(self) -> list[dict]:
        """The regions table from the files as they are now."""
        return regions(load_measurement(self.out))

    def finish(self) -> list[dict]:
        assert self.stop() == 0, self.process.stderr.read()
        return self.rows()

    def late_s(self, stops: int = 0) -> float:
        """The most that a reading of the fast lane was late, by the sidecar's own record; the `stops` latest on each
        GPU are left out."""
        table = read_samples(self.out)
        lane, device, late_us = (table[name].to_numpy() for name in ("lane", "device", "late_us"))
        per_gpu = [np.sort(late_us[(lane == FAST) & (device == one)]) for one in np.unique(device)]
        return 1e-6 * max(float(late[-1 - stops]) for late in per_gpu if len(late) > stops)

    def row(self, rows: list[dict], gpu: int | None = None, region: str = "window") -> dict:
        """The row of one GPU (None: the total)."""
        uuid = None if gpu is None else self.node.uuid(gpu)
        return next(r for r in rows if r["region"] == region and r["device_uuid"] == uuid)

    def true_energy_j(self, gpu: int, region: str = "window") -> float:
        span = next(s for s in self.spans if s.name == region)
        return self.node.true_energy_j(gpu, span.start_s, span.end_s)


# Above this lateness of its readings the sidecar itself says that the machine was too busy for a test of exact times.
QUIET_S, TRIES = 0.04, 8


def when_quiet(
    scenario: Callable[[int], tuple[Session, list[dict]]], stops: int = 0
) -> tuple[Session, list[dict]]:
    """What `scenario(attempt)` returns of the first attempt in which the sidecar was on time, but for `stops` readings
    that the test itself made late. Fails after TRIES attempts, and says how late the sidecar was."""
    lateness = []
    for attempt in range(TRIES):
        session, rows = scenario(attempt)
        lateness.append(session.late_s(stops))
        if lateness[-1] < QUIET_S:
            return session, rows
    raise AssertionError(f"the machine was busy in every attempt: readings late by {lateness} s")


def codes(row: dict) -> set[str]:
    """Reason codes of a row."""
    return set(filter(None, row["reasons"].split(",")))


def standard_u_j(row: dict) -> float:
    """Edge and gap uncertainty together (J)."""
    return (row["energy_edge_u_j"] ** 2 + row["energy_gap_u_j"] ** 2) ** 0.5
