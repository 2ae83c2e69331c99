"""The sidecar: one process per node that samples the meters while others train.

    python -m jouleline.measure.sidecar --out DIR [--meter auto|nvml|rapl|estimate] [--period-ms 20]
        [--gpus auto|UUID,...] [--root-pid PID] [--idle-s 1.0] [--estimate '{"w_per_core": 10, "idle_w": 5}']

It writes DIR/ready.json when the idle baseline is done and the load may start. It ends on DIR/stop, SIGTERM, SIGINT,
SIGUSR1, or the death of its parent or of --root-pid. Exit codes: 0 done, 2 bad input, 3 no such meter, 4 another
sidecar measures this node for this job. It is a separate process, because a sampling thread in a busy trainer runs
milliseconds late. It never imports torch and never makes a CUDA context.
"""

import argparse
import contextlib
import errno
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from jouleline.errors import UserError
from jouleline.files import one_line, why, write_json
from jouleline.measure.meters.base import Options
from jouleline.measure.meters.choice import open_meter, passed_over_line
from jouleline.measure.raw import segments
from jouleline.measure.raw.events import EventLog, utc
from jouleline.measure.raw.proc import alive, peak_rss_mib, signal_at_parents_end
from jouleline.measure.sidecar.claim import claim_folder, claim_node, node_name
from jouleline.measure.sidecar.compaction import compact
from jouleline.measure.sidecar.lanes import Lanes
from jouleline.measure.sidecar.options import parse
from jouleline.measure.sidecar.others import Others
from jouleline.measure.sidecar.writer import SegmentWriter
from jouleline.provenance import code_digest

# The main thread wakes rarely, because each time costs as much as a sweep over eight GPUs.
WATCH_S, SOON_S = 0.25, 0.03
CHECK_S = 1.0
CLOCK_STEP_US = 100_000
# The least time of reading before the load starts and after it ends, whatever --idle-s says. A counter that moves every
# 20 to 100 ms must have moved once on either side of a region.
BRACKET_S = 0.25
# The main thread and the writer must not hold the interpreter when a reading is due.
SWITCH_INTERVAL_S = 0.0005


def clear(folder: Path) -> None:
    """Remove what an earlier measurement left in `folder`. Two measurements must never be read as one."""
    names = ("meta.json", "events.jsonl", "samples.parquet")
    for old in (
        *(folder / name for name in names),
        *folder.glob("markers/rank-*.bin"),
        *segments.paths(folder),
    ):
        old.unlink(missing_ok=True)


def own_code() -> dict[str, str | None]:
    """Version of the package, and digest of the measuring code; None where unknown."""
    version = digest = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("jouleline")
    with contextlib.suppress(OSError):
        digest = code_digest([Path(__file__)])
    return {"version": version, "digest": digest}


class Sidecar:
    """One measurement from start to end. `run` returns the exit code."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.folder = Path(options.out)
        self.stop_file = self.folder / "stop"
        self.parent = os.getppid()
        self.stopped_by: str | None = None
        self.clock_offset_us: int | None = None
        self.soon = False  # whether a call may be stuck
        self.calls: dict[str, float] = {}

    def run(self) -> int:
        self._catch_signals()
        self._make_folder()
        with claim_node(self.folder), claim_folder(self.folder):
            self._open()
            return self._measure()

    def _measure(self) -> int:
        self.lanes = Lanes(self.meter.lanes(), self.events)
        self.writer = SegmentWriter(self.scratch, self.lanes.take, self.events)
        self._write_meta(ended=False)
        self.lanes.start()
        self.writer.start()
        self._idle("before")
        if self.stopped_by is None:
            self.events.write()
            write_json(self.folder / "ready.json", self._ready())
        self._wait()
        self._idle("after")
        self.lanes.stop()
        self.writer.finish()
        try:
            self.calls = compact(self.scratch, self.folder, self.writer.pending)
            taken = self.writer.rows_written + self.writer.pending_rows
            if taken != self.calls["rows"]:
                self.events.add("samples_lost", rows=taken - self.calls["rows"])
        except OSError as error:
            self.events.add("not_compacted", message=str(error))
        if self.scratch != self.folder:
            with contextlib.suppress(OSError):
                self.scratch.rmdir()
        self._ask_meter(last=True)
        self.events.add("ended", by=self.stopped_by)
        self.events.write()
        with contextlib.suppress(OSError, UserError):
            self._write_meta(ended=True)
        return 0

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "markers").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.folder} (--out): {why(error)}") from error
        if not os.access(self.folder, os.W_OK):
            refusal = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise UserError(f"cannot write {self.folder} (--out): {why(refusal)}")

    def _open(self) -> None:
        """Open the meter. Make room for the measurement only when the meter works."""
        # From here on, what a launcher waits for or asks with belongs to this measurement.
        for name in ("stop", "ready.json"):
            (self.folder / name).unlink(missing_ok=True)
        options = self.options
        self.root_pid = options.root_pid or self.parent
        self.meter = open_meter(
            options.meter,
            Options(
                root_pid=self.root_pid,
                period_s=options.period_ms * 1e-3,
                node=node_name(),
                gpus=options.gpus,
                watts_per_core=options.estimate["w_per_core"],
                idle_watts=options.estimate["idle_w"],
            ),
        )
        self.others = Others(self.root_pid)
        self.scratch = self._make_scratch()
        clear(self.folder)
        self.events = EventLog(self.folder)
        self.events.add("started", pid=os.getpid())
        if self.meter.passed_over:
            self.events.add("meters_passed_over", meter=self.meter.name, reasons=self.meter.passed_over)
            print(passed_over_line(self.meter.name, self.meter.passed_over), file=sys.stderr, flush=True)
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    def _make_scratch(self) -> Path:
        """The folder of the segments: a new folder under --scratch, else --out itself."""
        scratch = self.options.scratch
        if not scratch:
            return self.folder
        try:
            Path(scratch).mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="jouleline-", dir=scratch))
        except OSError as error:
            raise UserError(f"cannot write {scratch} (--scratch): {why(error)}") from error

    def _catch_signals(self) -> None:
        def stop(number, _frame):
            if number != signal.SIGHUP:
                self.stopped_by = self.stopped_by or signal.Signals(number).name

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, stop)
        # The parent's death wakes the wait. `_parents_alive` then decides, because the signal also comes when only the
        # thread that started us has ended.
        with contextlib.suppress(OSError, AttributeError):
            signal_at_parents_end(signal.SIGHUP)

    def _parents_alive(self) -> bool:
        return os.getppid() == self.parent and alive(self.root_pid)

    def _turn(self) -> None:
        """One turn of the main thread: look for stuck calls and for the stop file."""
        time.sleep(SOON_S if self.soon else WATCH_S)
        self.soon = self.lanes.watch()
        if self.stopped_by is None and os.path.exists(self.stop_file):
            self.stopped_by = "stop file"

    def _check(self) -> None:
        """Once a second: look at the parents, the wall clock, the meter's own checks, and others on the machine."""
        if self.stopped_by is None and not self._parents_alive():
            self.stopped_by = "death of the parent"
        offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        if self.clock_offset_us is not None and abs(offset_us - self.clock_offset_us) > CLOCK_STEP_US:
            self.events.add("clock_step", step_s=round((offset_us - self.clock_offset_us) * 1e-6, 3))
        self.clock_offset_us = offset_us
        self._ask_meter()

    def _ask_meter(self, last: bool = False) -> None:
        for event in (*self.meter.check(), *self.others.look(last)):
            self.events.add(**event)

    def _wait(self) -> None:
        due = time.monotonic()
        while self.stopped_by is None:
            if time.monotonic() >= due:
                self._check()
                due += CHECK_S
            self._turn()

    def _idle(self, phase: str) -> None:
        """Sample for idle_s seconds without load, and log the begin and the end. Where the measurement must end at
        once, or has no idle baseline, sample only what the edges of the regions need."""
        start_us = time.monotonic_ns() // 1000
        whole = self.options.idle_s > 0 and self.stopped_by in (None, "stop file")
        until = time.monotonic() + (max(self.options.idle_s, BRACKET_S) if whole else BRACKET_S)
        reason = self.stopped_by
        while time.monotonic() < until and self.stopped_by in (None, reason):
            time.sleep(min(SOON_S if self.soon else WATCH_S, max(until - time.monotonic(), 0)))
            self.soon = self.lanes.watch()
        if whole:
            self.events.add("idle", phase=phase, start_us=start_us, end_us=time.monotonic_ns() // 1000)

    def _ready(self) -> dict:
        return {
            "pid": os.getpid(),
            "meter": self.meter.name,
            "energy_source": self.meter.energy_source,
            "devices": self.meter.devices,
            "capabilities": self.meter.capabilities,
            "passed_over": self.meter.passed_over,
        }

    def _write_meta(self, ended: bool) -> None:
        now_us, mono_us = time.time_ns() // 1000, time.monotonic_ns() // 1000
        if not ended:
            self.started = {"started_utc": utc(now_us), "start_utc_us": now_us, "start_us": mono_us}
            self.code = own_code()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        slurm = {key.lower(): value for key, value in sorted(os.environ.items()) if key in _SLURM}
        meta = {
            "schema": 1,
            "code": self.code,
            "node": node_name(),
            "host": socket.gethostname(),
            "slurm": slurm,
            **self.started,
            "ended_utc": utc(now_us) if ended else None,
            "end_us": mono_us if ended else None,
            "stopped_by": self.stopped_by,
            "period_ms": self.options.period_ms,
            "root_pid": self.root_pid,
            "scratch": None if self.scratch == self.folder else str(self.scratch),
            **self._ready(),
            "facts": self.meter.facts,
            "sidecar": {
                "rows": self.writer.rows_written,
                "skipped": sum(lane.skipped for lane in self.lanes.lanes),
                "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
                "peak_rss_mib": peak_rss_mib(),
                **self.calls,
            },
        }
        write_json(self.folder / "meta.json", meta)


_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_NODEID",
    "SLURM_NNODES",
    "SLURMD_NODENAME",
    "SLURM_JOB_PARTITION",
)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    try:
        return Sidecar(parse(argv)).run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # Checked before the first sample. Later a full disk only makes the samples wait.
        print(f"error: cannot measure: {one_line(error)}", file=sys.stderr)
        return 2


def main_and_exit() -> NoReturn:
    """`main`, and the end of the process. A thread that hangs in a driver call must not keep the process alive."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
