"""Wrap mode: run any command beside a sidecar and return its exit code."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.measure.raw.markers import END, ENVIRONMENT, NODE_RANK, START, MarkerFile, encode_name
from jouleline.measure.sidecar.claim import require_free
from jouleline.measure.sidecar.client import Sidecar

NOT_FOUND = 127


# The files of a measurement or a run. A new measurement would overwrite them, or be read together with them.
LEFT = (
    *("meta.json", "run.json", "run.failed.json", "ready.json", "events.jsonl", "stop"),
    *("*.parquet", "samples/*", "markers/*", "node-*"),
)


def require_unused(out: Path) -> None:
    """Raise UserError where `out` holds a measurement or a run, or where somebody measures into it."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give --out a folder")
    require_free(out)
    left = next((path for pattern in LEFT for path in out.glob(pattern)), None)
    if left is not None:
        raise UserError(f"{out} already holds a measurement ({left}); choose another --out")


def measure_command(command: Sequence[str], out: Path, options: Mapping[str, Any]) -> int:
    """Run `command` while a sidecar with these `options` (see `Sidecar`) measures.

    Returns the command's exit code: 128 + n when signal n ended it, 127 when it is not found. The whole command is the
    region `command`. The command's own marks go to the same folder. Raises UserError, before it writes anything, where
    `out` already holds a measurement.
    """
    require_unused(out)
    if shutil.which(command[0]) is None:
        return _not_found(command[0], "no such program, or not one that may be run")
    sidecar = Sidecar(out, options)
    sidecar.wait_ready()
    try:
        marks = MarkerFile(str(out / "markers"), NODE_RANK)
        environment = os.environ | {ENVIRONMENT: str((out / "markers").resolve())}
        marks.write(START, time.monotonic_ns(), 1, 0, encode_name("command"))
        code = _run(command, environment)
        marks.write(END, time.monotonic_ns(), 1, 0, encode_name("command"))
    finally:
        ended = sidecar.stop()
    if ended != 0:
        why = f" ({sidecar.last_line()})" if sidecar.last_line() else ""
        print(f"warning: the sidecar ended with {ended}{why}; see {out / 'events.jsonl'}", file=sys.stderr)
    return code


def _not_found(name: str, why: str | None) -> int:
    print(f"error: cannot run {name}: {why}; check the path", file=sys.stderr)
    return NOT_FOUND


def _in_foreground() -> bool:
    """Whether this process and the command are in the foreground of a terminal."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(command, env=environment)
    except OSError as error:
        return _not_found(command[0], error.strerror)

    def forward(number, _frame):
        # A terminal sends Ctrl-C to the command as well. A second signal would cut its cleanup short.
        if number not in (signal.SIGINT, signal.SIGHUP) or not _in_foreground():
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, forward)
    code = child.wait()
    return code if code >= 0 else 128 - code
