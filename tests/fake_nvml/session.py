"""A sidecar process on a fake node, with regions marked by the test itself."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fake_nvml.driver import FakeNode
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.measure.raw.markers import END, START, MarkerFile, encode_name


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

    def row(self, rows: list[dict], gpu: int | None = None, region: str = "window") -> dict:
        """The row of one GPU (None: the total)."""
        uuid = None if gpu is None else self.node.uuid(gpu)
        return next(r for r in rows if r["region"] == region and r["device_uuid"] == uuid)

    def true_energy_j(self, gpu: int, region: str = "window") -> float:
        span = next(s for s in self.spans if s.name == region)
        return self.node.true_energy_j(gpu, span.start_s, span.end_s)


def codes(row: dict) -> set[str]:
    """Reason codes of a row."""
    return set(filter(None, row["reasons"].split(",")))


def standard_u_j(row: dict) -> float:
    """Edge and gap uncertainty together (J)."""
    return (row["energy_edge_u_j"] ** 2 + row["energy_gap_u_j"] ** 2) ** 0.5
