"""Starting a sidecar, waiting for it, and stopping it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json
from jouleline.measure.sidecar import __main__ as program

# Both limits exclude the idle baseline. GPUs without persistence mode may take a minute to start.
READY_LIMIT_S = 120.0
# Enough to compact two days of eight GPUs. After this time the segments stay, which are as good.
STOP_LIMIT_S = 120.0
_KILL_S = 5.0
_POLL_S = 0.02
_NOTE = "note: "


def options_of(protocol: Mapping[str, Any], scratch: str | None = None) -> dict[str, Any]:
    """The sidecar's options for a complete protocol. `scratch` is a folder on the node's own disk."""
    watts = {"w_per_core": protocol["estimate_w_per_core"], "idle_w": protocol["estimate_idle_w"]}
    options = {"meter": protocol["meter"], "period-ms": protocol["period_ms"], "gpus": "auto"}
    return options | {"idle-s": protocol["idle_s"], "estimate": json.dumps(watts), "scratch": scratch}


class Sidecar:
    """A sidecar that measures into `folder`, for this process and what it starts.

    `options` are those of `sidecar.options` without their dashes; None leaves one out. The output of the sidecar goes
    to the file `log`. Without `log` the output has no file name, and the sidecar's notes go to stderr.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], log: Path | None = None):
        self.folder = folder
        self.idle_s = float(options.get("idle-s", 0.0))
        # Name and value in one word, because a value may begin with a dash.
        given = {"out": folder, "root-pid": os.getpid()} | options
        words = [f"--{name}={value}" for name, value in given.items() if value is not None]
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
        self.pass_on, self.passed = log is None, 0
        self.log = open(log, "w+b") if log else tempfile.TemporaryFile()  # noqa: SIM115
        # The modules of the current folder and of PYTHONPATH are the user's. They may have the names of ours.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # A session of its own: Ctrl-C is meant for the command, and the end of the command must still be measured.
        self.process = subprocess.Popen(
            [sys.executable, "-P", program.__file__, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def wait_ready(self, limit_s: float = READY_LIMIT_S) -> dict[str, Any]:
        """The content of ready.json, when the idle baseline is done and the load may start.

        Raises UserError with the sidecar's own line and exit code where it ends. Raises it too, and ends the sidecar,
        where it is not ready `limit_s` after its baseline.
        """
        try:
            return self._wait_ready(limit_s + self.idle_s)
        except BaseException:
            self.process.terminate()
            raise

    def _wait_ready(self, limit_s: float) -> dict[str, Any]:
        until = time.monotonic() + limit_s
        while not self._is_ready():
            self._pass_on()
            if self.died:
                code = self.process.returncode
                said = self.last_line().removeprefix("error: ") or f"the sidecar ended with {code}"
                raise UserError(said, code if code > 0 else 2)
            if time.monotonic() > until:
                self.process.kill()
                events = self.folder / "events.jsonl"
                raise UserError(f"the sidecar was not ready within {limit_s:g} s; see {events}")
            time.sleep(_POLL_S)
        self._pass_on()
        return read_json(self.folder / "ready.json")

    def _is_ready(self) -> bool:
        # The pid distinguishes this sidecar's file from that of an earlier measurement.
        with contextlib.suppress(OSError):
            return f'"pid": {self.process.pid},' in (self.folder / "ready.json").read_text(
                encoding="utf-8", errors="replace"
            )
        return False

    def _pass_on(self) -> None:
        """Print the notes that came since the last call."""
        lines = self._said() if self.pass_on else []
        for line in lines[self.passed :]:
            if line.startswith(_NOTE):
                print(line, file=sys.stderr, flush=True)
        self.passed = len(lines)

    def last_line(self) -> str:
        """The last line that the sidecar printed, without notes. Empty where there is none."""
        return next((line for line in reversed(self._said()) if not line.startswith(_NOTE)), "")

    def _said(self) -> list[str]:
        """The whole lines that the sidecar has printed."""
        # Read by position, because the sidecar writes through the same handle.
        text = os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")
        return [
            line.strip() for line in text.splitlines(keepends=True) if line.endswith("\n") and line.strip()
        ]

    @property
    def died(self) -> bool:
        """Whether it has ended, for any reason."""
        return self.process.poll() is not None

    def stop(self, limit_s: float = STOP_LIMIT_S) -> int:
        """End the measurement after its second idle baseline. Returns the exit code (negative: killed)."""
        if not self.died:
            try:
                (self.folder / "stop").touch()
            except OSError:  # its folder is gone, or full
                return self.terminate(limit_s)
        try:
            return self.process.wait(limit_s + self.idle_s)
        except subprocess.TimeoutExpired:
            return self.terminate(_KILL_S)

    def terminate(self, limit_s: float = STOP_LIMIT_S) -> int:
        """End the measurement at once and keep what was sampled. Returns the exit code (negative: killed)."""
        if not self.died:
            self.process.terminate()
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
