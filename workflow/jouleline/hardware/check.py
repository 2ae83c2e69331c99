"""The hardware check: known loads on one GPU, and everything that its NVML says meanwhile, as raw tables.

It changes nothing on the device. Tables are written as they come, so an interrupted check keeps what it has.
"""

import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import pynvml

from jouleline.errors import UserError
from jouleline.files import write_json
from jouleline.hardware import load
from jouleline.hardware.tables import LATENCIES, LOADS, READINGS, STEPS, SUPPORT
from jouleline.measure.meters.nvml_probe import attempt, list_gpus, open_nvml
from jouleline.measure.meters.nvml_read import (
    AVERAGE,
    ENERGY,
    INSTANT,
    SCOPE_GPU,
    SCOPE_MEMORY,
    SCOPE_MODULE,
    Calls,
    FieldBuffer,
    SlowReader,
)
from jouleline.measure.sidecar.client import Sidecar
from jouleline.schemas import write_table

LOAD_COMMAND = (sys.executable, "-m", load.__name__)
POLL_S = 0.002
LATENCY_CALLS, LATENCY_GAP_S = 60, 0.003
SIDECAR_PERIODS_MS = (100, 50, 20, 10)
BLOCKS = 4
# Periods of the square waves as multiples of the counter's tick: in step with it, and beating slowly with it.
BEATS = (1.0, 1.005, 1.01, 0.73)
SLOW_SQUARE_S = 4.0
# Seconds of each part in a check of five minutes. A shorter or longer check scales them.
WHOLE_S = 300.0
PARTS_S = {
    "bare_idle": 15,
    "context_idle": 10,
    "constant": 65,
    "slow_square": 16,
    "square": 21,
    "wait": 10,
    "steps": 2.5,
}


@dataclass
class Check:
    """A check of the GPU `index` that takes about `minutes` and writes its tables to `out`."""

    out: Path
    minutes: float
    index: int = 0
    load_command: Sequence[str] = LOAD_COMMAND
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def run(self) -> None:
        """All parts in order. Raises UserError without NVML, without that GPU, or where the load fails."""
        open_nvml()
        gpus = list_gpus()
        if self.index >= len(gpus) or gpus[self.index].handle is None:
            raise UserError(f"NVML shows no GPU {self.index} that answers; name another with --gpu")
        self.gpu = gpus[self.index]
        self.out.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        self._facts(None, None)
        self._support()
        idle_s = self._latencies("idle")
        self._watch("bare_idle", None, self._seconds("bare_idle"))
        with self._load() as (device, ask):
            self._watch("context_idle", ask, self._seconds("context_idle"), kind="idle")
            self._watch("constant", ask, self._seconds("constant"), kind="constant")
            # Calls may take longer under load.
            with ask.during(kind="constant", seconds=1 + 2 * idle_s):
                time.sleep(0.2)
                self._latencies("loaded")
            seconds = self._seconds("slow_square")
            period_s = min(SLOW_SQUARE_S, seconds / 4)
            self._watch("slow_square", ask, seconds, kind="square", period_s=period_s)
            tick_s = self._tick_s()
            for beat in BEATS:
                period_s = round(beat * tick_s, 6)
                name = f"square_{1000 * period_s:.2f}_ms"
                self._watch(name, ask, self._seconds("square"), kind="square", period_s=period_s)
            self._watch("active_wait", ask, self._seconds("wait"), kind="wait_host")
            self._steps(ask)
        self._facts(device, time.monotonic() - begin)

    def _seconds(self, part: str) -> float:
        return PARTS_S[part] * 60 * self.minutes / WHOLE_S

    def _facts(self, device: str | None, duration_s: float | None) -> None:
        facts = {
            "schema": 1,
            "gpu": self.gpu.name,
            "uuid": self.gpu.uuid,
            "cuda_device": device,
            **self.gpu.facts,
        }
        facts |= {"driver": attempt(pynvml.nvmlSystemGetDriverVersion), "minutes": self.minutes}
        facts |= {
            "nvml": attempt(pynvml.nvmlSystemGetNVMLVersion),
            "poll_s": POLL_S,
            "duration_s": duration_s,
        }
        write_json(self.out / "facts.json", facts)

    def _add(self, table, rows: list[dict[str, Any]]) -> None:
        kept = self.tables.setdefault(table.name, [])
        kept += rows
        write_table(table, kept, self.out / f"{table.name}.parquet")

    def _say(self, text: str) -> None:
        print(f"check: {text}", flush=True)

    # ---- what the driver supports, and how long it takes

    def _calls(self) -> dict[str, Callable[[], int]]:
        """Every call that the sidecar makes, by name. Each returns NVML's code."""
        quiet = Calls(0, lambda *_: None)

        def fields(*wanted: tuple[int, int]) -> Callable[[], int]:
            buffer = FieldBuffer(self.gpu.handle, list(wanted), quiet)
            return lambda: buffer.read() or max(entry.nvmlReturn for entry in buffer.entries)

        def function(name: str, arguments: tuple) -> Callable[[], int]:
            def call() -> int:
                try:
                    getattr(pynvml, name)(self.gpu.handle, *arguments)
                except pynvml.NVMLError as error:
                    return error.value
                return 0

            return call

        calls = {"fields 83+186 (fast lane)": fields((ENERGY, 0), (INSTANT, SCOPE_GPU))}
        power = [
            (number, scope)
            for number in (AVERAGE, INSTANT)
            for scope in (SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY)
        ]
        throttle = [
            (number, 0) for name, number, _ in SlowReader.field_columns if name.startswith("throttle")
        ]
        for number, scope in [(ENERGY, 0), *power, *throttle]:
            calls[f"field {number} scope {scope}"] = fields((number, scope))
        others = [("nvmlDeviceGetTotalEnergyConsumption", ()), ("nvmlDeviceGetPowerUsage", ())]
        others += [
            (name, arguments) for _, name, arguments in SlowReader.call_columns + SlowReader.seldom_columns
        ]
        for name, arguments in others:
            calls[" ".join([name, *map(str, arguments)])] = function(name, arguments)
        return calls

    def _support(self) -> None:
        rows = []
        for name, call in self._calls().items():
            code = call()
            text = "supported" if code == 0 else str(pynvml.NVMLError(code))
            rows.append({"call": name, "code": code, "text": text})
        self._add(SUPPORT, rows)
        self._say(f"{sum(row['code'] == 0 for row in rows)} of {len(rows)} calls are supported")

    def _latencies(self, state: str) -> float:
        """Time every supported call. Returns the seconds that this took."""
        begin = time.monotonic()
        rows = []
        for name, call in self._calls().items():
            if call():
                continue
            for _ in range(LATENCY_CALLS):
                time.sleep(LATENCY_GAP_S)
                before = time.perf_counter_ns()
                call()
                rows.append(
                    {"state": state, "call": name, "call_us": (time.perf_counter_ns() - before) / 1e3}
                )
        self._add(LATENCIES, rows)
        self._say(f"latencies while {state} done")
        return time.monotonic() - begin

    # ---- loads

    @contextmanager
    def _load(self) -> Iterator[tuple[str, "Ask"]]:
        """The process of the load: (its device's name, a way to ask it)."""
        log = self.out / "load.log"
        # NVML counts the devices in the order of the bus.
        only = os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(self.index)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with open(log, "wb") as errors:
            process = subprocess.Popen(
                self.load_command, **pipes, stderr=errors, encoding="utf-8", errors="replace", env=only
            )
        try:
            ready = Ask(process, log).answer()
            yield ready["device"], Ask(process, log)
        finally:
            process.stdin.close()
            process.kill()
            process.wait()

    def _watch(self, phase: str, ask: "Ask | None", seconds: float, **request: Any) -> None:
        """Poll the device as fast as is useful while a load runs, or while nothing runs."""
        fields = [(ENERGY, 0), (INSTANT, SCOPE_GPU), (AVERAGE, SCOPE_GPU)]
        buffer = FieldBuffer(self.gpu.handle, fields, Calls(0, lambda *_: None))
        rows: list[dict[str, Any]] = []
        start_ns = time.monotonic_ns()
        if ask:
            ask.send({"seconds": seconds, **request})
        while not (ask.answered() if ask else time.monotonic_ns() > start_ns + seconds * 1e9):
            rows.append({"phase": phase, **_reading(buffer)})
            time.sleep(POLL_S)
        done = ask.answer() if ask else {"start_ns": start_ns, "end_ns": time.monotonic_ns(), "on_s": 0.0}
        self._add(READINGS, rows)
        self._add(LOADS, [{"phase": phase, "period_s": request.get("period_s"), **done}])
        self._say(f"{phase}: {(done['end_ns'] - done['start_ns']) * 1e-9:.1f} s, {len(rows)} readings")

    def _tick_s(self) -> float:
        """The counter's tick as seen so far (s, to the millisecond): the mean of the usual time between its moves."""
        rows = [row for row in self.tables[READINGS.name] if row["phase"] == "constant"]
        known = [(row["t_ns"], row["energy_mj"]) for row in rows if row["energy_mj"] is not None]
        moves = [after[0] for before, after in pairwise(known) if after[1] != before[1]]
        apart = [(after - before) * 1e-9 for before, after in pairwise(moves)]
        if len(apart) < 3:
            raise UserError("the energy counter does not move under load; the check needs one that does")
        usual = median(apart)
        return round(mean(value for value in apart if value < 1.5 * usual), 3)

    def _steps(self, ask) -> None:
        """Step times of a small training with the sidecar at each period and without it, in blocks of random order."""
        shuffle = random.Random(0).shuffle
        for block in range(BLOCKS):
            settings = [0, *SIDECAR_PERIODS_MS]
            shuffle(settings)
            for period_ms in settings:
                with self._sidecar(period_ms):
                    answer = ask(kind="steps", seconds=self._seconds("steps"))
                rows = [
                    {"period_ms": period_ms, "block": block, "step_s": value} for value in answer["step_s"]
                ]
                self._add(STEPS, rows)
            self._say(f"steps with and without the sidecar, block {block + 1} of {BLOCKS}")

    @contextmanager
    def _sidecar(self, period_ms: int) -> Iterator[None]:
        if not period_ms:
            yield
            return
        folder = self.out / "sidecar"
        options = {"meter": "nvml", "gpus": self.gpu.uuid, "idle-s": 0, "period-ms": period_ms}
        sidecar = Sidecar(folder, options)
        sidecar.wait_ready()
        try:
            yield
        finally:
            sidecar.stop()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Ask:
    """Requests to the load's process, one at a time."""

    process: subprocess.Popen
    log: Path

    def __call__(self, **request: Any) -> dict[str, Any]:
        """The answer to a request, after its load."""
        self.send(request)
        return self.answer()

    @contextmanager
    def during(self, **request: Any) -> Iterator[None]:
        """Run the body while the load is on, and wait for its end."""
        self.send(request)
        yield
        self.answer()

    def answered(self) -> bool:
        """Whether the load is over, so that `answer` does not wait."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def send(self, request: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UserError(f"the load of the check failed: {said[-1] if said else 'it said nothing'}", 1)
        return json.loads(line)


def _reading(buffer: FieldBuffer) -> dict[str, Any]:
    """One reading: when it began (CLOCK_MONOTONIC), how long it took, and its values; null where a field failed."""
    before_ns = time.monotonic_ns()
    code = buffer.read()
    call_us = (time.monotonic_ns() - before_ns) / 1e3
    good = [not (code or entry.nvmlReturn) for entry in buffer.entries]
    energy, instant, average = buffer.values
    return {
        "t_ns": before_ns,
        "call_us": call_us,
        "energy_mj": energy.ullVal if good[0] else None,
        "instant_mw": instant.uiVal if good[1] else None,
        "average_mw": average.uiVal if good[2] else None,
    }
