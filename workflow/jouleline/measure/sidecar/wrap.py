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
from jouleline.files import read_json
from jouleline.measure.meters.choice import passed_over_line
from jouleline.measure.raw.markers import END, ENVIRONMENT, START, MarkerFile, encode_name
from jouleline.measure.sidecar import process as sidecar
from jouleline.measure.sidecar.claim import require_free

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
    command = [sys.executable, "-m", sidecar.__name__, f"--out={out}", *arguments]
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


# What a measurement or a run leaves; any of it would be written over, or read as one with the new.
LEFT = (
    *("meta.json", "run.json", "run.failed.json", "ready.json", "events.jsonl", "stop"),
    *("*.parquet", "samples/*", "markers/*", "node-*"),
)


def require_unused(out: Path) -> None:
    """Raise UserError where `out` holds a measurement or a run, or is being measured into."""
    require_free(out)
    left = next((path for pattern in LEFT for path in out.glob(pattern)), None)
    if left is not None:
        raise UserError(f"{out} already holds a measurement ({left}); choose another --out, or delete it")


def measure_command(
    command: Sequence[str], out: Path, sidecar_arguments: Sequence[str], idle_s: float = 0.0
) -> int:
    """Run `command` measured; returns its exit code (128 + n when signal n ended it, 127 when it is not
    found). `idle_s` is what the sidecar was told: so much longer it takes to be ready, and to end.

    The whole command is the region `command`; its own marks go to the same folder. Raises UserError, before anything
    is written, where `out` already holds a measurement.
    """
    require_unused(out)
    if shutil.which(command[0]) is None:
        return _not_found(command[0], "no such program, or not one that may be run")
    sidecar = start_sidecar(out, [*sidecar_arguments, "--root-pid", str(os.getpid())], READY_LIMIT_S + idle_s)
    try:
        _pass_on(out)
        marks = MarkerFile(str(out / "markers"), NODE_RANK)
        environment = os.environ | {ENVIRONMENT: str((out / "markers").resolve())}
        marks.write(START, time.monotonic_ns(), 1, 0, encode_name("command"))
        code = _run(command, environment)
        marks.write(END, time.monotonic_ns(), 1, 0, encode_name("command"))
    finally:
        ended = stop_sidecar(out, sidecar, STOP_LIMIT_S + idle_s)
    if ended != 0:
        said = [line for line in sidecar.stderr.read().splitlines() if not line.startswith("note: ")]
        why = f" ({said[-1].strip()})" if said else ""
        print(f"warning: the sidecar ended with {ended}{why}; see {out / 'events.jsonl'}", file=sys.stderr)
    return code


def _pass_on(out: Path) -> None:
    """Say what the sidecar has to say of its meter."""
    ready = read_json(out / "ready.json")
    if ready["passed_over"]:
        print(passed_over_line(ready["meter"], ready["passed_over"]), file=sys.stderr, flush=True)


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
