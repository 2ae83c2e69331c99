"""Snakemake as a user starts it, against the test cluster: started, watched, killed, and asked what it said."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import forked

from tests.slurm.cluster import Cluster

SNAPPY = ["--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2"]


class Campaign:
    """One snakemake process in a folder. Its words are in `log`. A program in folder/bin comes before Slurm's.

    `through` are the words of a program that starts it, as somebody else, say.
    """

    def __init__(self, cluster: Cluster, folder: Path, *arguments: str, through: Sequence[str] = ()):
        self.cluster = cluster
        self.folder = folder
        # Several in one folder have a log each.
        self.log = folder / f"snakemake-{len(list(folder.glob('snakemake-*.out')))}.out"
        binaries = Path(sys.executable).parent
        path = f"{folder}/bin:{cluster.state}/bin:{binaries}:{os.environ['PATH']}"
        popen = subprocess.Popen if through else partial(forked.Popen, forked.SNAKEMAKE)
        with open(self.log, "wb") as log:
            self.process = popen(
                [*through, sys.executable, binaries / "snakemake", *arguments],
                cwd=folder,
                env=os.environ | {"PATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout_s: float) -> int:
        """Exit status. A process that does not end is killed, and that is an error with its last words."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"snakemake hangs; its last words:\n{self.said()[-4000:]}") from None

    def kill(self) -> None:
        """End the controller as a power cut would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"snakemake ended before {what}:\n{self.said()[-4000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {timeout_s} s:\n{self.said()[-4000:]}")
            time.sleep(0.1)

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *_) -> None:
        self.kill()
