"""Wrap mode: run any command beside a sidecar and give back its exit code."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jouleline.errors import UserError
from jouleline.measure.markers import END, ENVIRONMENT, START, MarkerFile, encode_name

# Marks by the wrapper hold for the whole node.
NODE_RANK = -1
READY_LIMIT_S = 60.0
# Two days of eight GPUs are compacted within it; if not, the segments stay, which are as good.
STOP_LIMIT_S = 120.0
NOT_FOUND = 127


def start_sidecar(out: Path, arguments: Sequence[str], limit_s: float = READY_LIMIT_S) -> subprocess.Popen:
    """Start a sidecar for `out` and wait until it is ready.

    Raises UserError when it cannot start (its own line and exit code) or is not ready in time.
    """
    command = [sys.executable, "-m", "jouleline.measure.sidecar", "--out", str(out), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        return _wait_ready(out, process, limit_s)
    except BaseException:
        process.terminate()
        raise


def _wait_ready(out: Path, process: subprocess.Popen, limit_s: float) -> subprocess.Popen:
    until = time.monotonic() + limit_s
    while not _is_ready(out, process.pid):
        if process.poll() is not None:
            said = process.stderr.read().strip().removeprefix("error: ") or f"exit code {process.returncode}"
            raise UserError(said, process.returncode if process.returncode > 0 else 2)
        if time.monotonic() > until:
            process.kill()
            raise UserError(f"the sidecar was not ready in {limit_s:g} s; see {out / 'events.jsonl'}")
        time.sleep(0.02)
    return process


def _is_ready(out: Path, pid: int) -> bool:
    # The pid tells this sidecar's file from one that an earlier measurement left.
    with contextlib.suppress(OSError):
        return f'"pid": {pid},' in (out / "ready.json").read_text()
    return False


def stop_sidecar(out: Path, process: subprocess.Popen, limit_s: float = STOP_LIMIT_S) -> int:
    """Ask the sidecar to end and wait for it; returns its exit code (negative: killed)."""
    with contextlib.suppress(OSError):
        (out / "stop").touch()
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        return process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def measure_command(command: Sequence[str], out: Path, sidecar_arguments: Sequence[str]) -> int:
    """Run `command` measured; returns its exit code (128 + n when signal n ended it, 127 when it is not
    found).

    The whole command is the region `command`; its own marks go to the same folder. Raises UserError, before anything
    is written, where `out` already holds a measurement.
    """
    if (out / "meta.json").exists():
        raise UserError(f"{out} already holds a measurement; choose another --out, or delete it")
    if shutil.which(command[0]) is None:
        return _not_found(command[0], "no such program, or not one that may be run")
    sidecar = start_sidecar(out, [*sidecar_arguments, "--root-pid", str(os.getpid())])
    try:
        marks = MarkerFile(str(out / "markers"), NODE_RANK)
        environment = os.environ | {ENVIRONMENT: str((out / "markers").resolve())}
        marks.write(START, time.monotonic_ns(), 1, 0, encode_name("command"))
        code = _run(command, environment)
        marks.write(END, time.monotonic_ns(), 1, 0, encode_name("command"))
    finally:
        ended = stop_sidecar(out, sidecar)
    if ended != 0:
        print(f"warning: the sidecar ended with {ended}; see {out / 'events.jsonl'}", file=sys.stderr)
    return code


def _not_found(name: str, why: str | None) -> int:
    print(f"error: cannot run {name}: {why}; check the path", file=sys.stderr)
    return NOT_FOUND


def _in_foreground() -> bool:
    """Whether this process and the command are what a terminal runs now."""
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
        # A terminal sends Ctrl-C to the command as well: twice would cut its own tidying short.
        if number not in (signal.SIGINT, signal.SIGHUP) or not _in_foreground():
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, forward)
    code = child.wait()
    return code if code >= 0 else 128 - code
