"""NVML: the energy counter and power of NVIDIA GPUs, and the state that explains them.

The fast lane makes one call of nvmlDeviceGetFieldValues per GPU. It reads the energy counter (field 83, mJ since driver
load, Volta and later) and the instant power (field 186, mW) into a buffer that is used again. The slow lane reads once
a second: average power (185), power of module and memory, clocks, temperature, throttle reasons and times,
utilisation, limit. Every third time it reads memory and processes. nvmlDeviceGetPowerUsage is only the last resort: it
means instant power up to GA100, and the average of 1 s on later GPUs. A call that fails gives null and an event.
"""

import os
import time
from typing import Any

import pynvml

from jouleline.errors import UserError
from jouleline.measure.meters.base import FAST, NO_METER, SLOW, LaneSpec, Options
from jouleline.measure.meters.devices import Chosen, choose
from jouleline.measure.meters.nvml_probe import attempt, list_gpus, open_nvml, within
from jouleline.measure.meters.nvml_read import FastReader, SlowReader
from jouleline.measure.meters.rapl import RaplMeter

SLOW_PERIOD_S = 1.0
HOST_PERIOD_S = 0.2
# Opening takes about 20 calls, and a busy driver may need a tenth of a second for each.
READER_LIMIT_S = 5.0
# The fast lane is a little faster than asked. At exactly 20 ms it would see every tick of a 100 ms counter at the same
# place between two readings. Then no number of ticks would tell where the tick is.
DETUNE = 63 / 64


class NvmlMeter:
    """The job's GPUs. RAPL stands beside them as the energy of the host, where it can be read.

    Raises UserError: exit code 3 without NVML or without a GPU, 2 for a GPU that is not there.
    """

    name = "nvml"
    energy_source = "nvml"

    def __init__(self, options: Options):
        self.options = options
        self.events: list[dict] = []
        open_nvml()
        gpus = list_gpus()
        chosen = choose(options.gpus, os.environ, gpus)
        if not chosen:
            raise UserError("no NVML: no GPU is visible to this job; use --meter estimate", NO_METER)
        self.fast: dict[int, FastReader] = {}
        self.slow: dict[int, SlowReader] = {}
        self.devices = [self._open(index, entry) for index, entry in enumerate(chosen)]
        ours = {entry.gpu.index for entry in chosen}
        self.host = self._open_host(len(chosen))
        host_devices = self.host.devices if self.host else []
        others = [{"uuid": g.uuid, "name": g.name} for g in gpus if g.index not in ours]
        self.devices += host_devices
        self.capabilities = {
            "host_energy": self.host is not None,
            **{
                device["uuid"]: device.pop("capabilities")
                for device in self.devices
                if device["kind"] == "gpu"
            },
        }
        self.facts = {
            "driver": attempt(pynvml.nvmlSystemGetDriverVersion),
            "nvml": attempt(pynvml.nvmlSystemGetNVMLVersion),
            "other_gpus": others,
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }

    def _open(self, index: int, entry: Chosen) -> dict[str, Any]:
        gpu = entry.gpu
        device = {
            "index": index,
            "uuid": gpu.uuid,
            "name": gpu.name,
            "kind": "gpu",
            "role": "job",
            "counter": None,
            "nvml_index": gpu.index,
            "bus_id": gpu.bus_id,
            # A whole GPU that is cut into slices counts as shared too, and its ranks report their slice.
            "mig": entry.slices or gpu.mig,
            "capabilities": {},
            **gpu.facts,
        }
        if gpu.handle is None:
            self.report(index, "probe", None, "the GPU did not answer")
            return device

        def make():
            fast = FastReader(gpu.handle, index, self.report)
            return fast, SlowReader(gpu.handle, index, fast.scope, self.options.root_pid, self)

        answered, readers = within(READER_LIMIT_S, make)
        if not answered:
            self.report(index, "probe", None, "the GPU did not answer")
            return device
        self.fast[index], self.slow[index] = readers
        device["counter"] = "ticking" if readers[0].has_counter else None
        device["power_scope"] = readers[0].scope_name
        device["power_call"] = readers[0].power_call
        device["capabilities"] = {"energy_counter": readers[0].has_counter, **readers[1].capabilities}
        return device

    def _open_host(self, first_index: int) -> RaplMeter | None:
        try:
            return RaplMeter(self.options, first_index, role="host")
        except UserError:
            return None

    def report(self, device: int, call: str, code: int | None, message: str) -> None:
        """Keep an event for the log: a call failed, or works again (code 0). The lanes call this."""
        kind = "call_recovered" if code == 0 else "call_failed"
        event = {"kind": kind, "device": device, "call": call, "code": code, "message": message}
        self.events.append(event | {"t_us": time.monotonic_ns() // 1000})

    def lanes(self) -> list[LaneSpec]:
        period_s = self.options.period_s * DETUNE
        fast = ("status", "energy_mj", "power_mw")
        fast_readers = {index: reader.read for index, reader in sorted(self.fast.items())}
        slow_readers = {index: reader.read for index, reader in sorted(self.slow.items())}
        specs = [
            LaneSpec("nvml", FAST, period_s, fast, fast_readers),
            LaneSpec("state", SLOW, SLOW_PERIOD_S, SlowReader.columns, slow_readers),
        ]
        if self.host:
            specs.append(LaneSpec("host", FAST, max(HOST_PERIOD_S, period_s), fast, self.host.readers()))
        return specs

    def check(self) -> list[dict]:
        taken, self.events = self.events, []
        return taken + (self.host.check() if self.host else [])
