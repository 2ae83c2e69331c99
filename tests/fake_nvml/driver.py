"""GPUs that are not there, for tests: builds the fake libraries and steers them through one shared file.

    node = FakeNode(folder, gpus=2)
    node.gpus[0].waves(square(0, 100, 500, period_s=0.35))
    subprocess.run(command, env=node.environment())
    node.true_energy_j(0, start_s, end_s)

Times are seconds since `node.epoch_ns` on CLOCK_MONOTONIC, the clock that the sidecar's marks are in.
"""

import ctypes
import math
import mmap
import os
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOREVER = 1e12
GPU_LOST = 15

CONSTANT, SQUARE, SINE, RAMP = range(4)
RESET_TO, FREEZE_LOSE, FREEZE_CATCH_UP = range(3)
RETURN_CODE, DELAY, HANG = range(3)

_d, _i = ctypes.c_double, ctypes.c_int32


class Segment(ctypes.Structure):
    _fields_ = [(n, _d) for n in ("start_s", "low_w", "high_w", "period_s", "duty", "phase_s")]
    _fields_ += [("wave", _i), ("pad", _i)]


class CounterEvent(ctypes.Structure):
    _fields_ = [("from_s", _d), ("to_s", _d), ("value_j", _d), ("kind", _i), ("pad", _i)]


class FaultRule(ctypes.Structure):
    _fields_ = [("function", ctypes.c_char * 64), ("from_s", _d), ("to_s", _d), ("seconds", _d)]
    _fields_ += [(n, _i) for n in ("gpu", "field", "kind", "code")]


class Gpu(ctypes.Structure):
    """One GPU; assign its attributes before or while a process uses the library.

    `init_s` is what its first handle takes, one GPU after the other, while no living process has one (a node without
    persistence mode). `denied` says that the handle is not given: NO_PERMISSION, as from a cgroup.
    """

    _fields_ = [("uuid", ctypes.c_char * 96), ("name", ctypes.c_char * 96), ("bus_id", ctypes.c_char * 32)]
    _fields_ += [
        (n, _d)
        for n in (
            "tick_s", "tick_phase_s", "counter_start_j", "counter_gain", "counter_window_s",
            "refresh_s", "sensor_window_s", "sensor_phase_s", "sensor_gain", "sensor_noise_w",
            "limit_w", "limit_after_w", "limit_change_s", "temperature_c", "temperature_rate_c_s",
            "throttle_from_s", "throttle_to_s",
        )
    ]  # fmt: skip
    _fields_ += [
        (n, _i)
        for n in (
            "no_counter", "module_only", "capability_major", "capability_minor", "throttle_field", "mig_slices",
            "n_segments", "n_events", "n_pids", "persistence", "ecc", "average_power_usage",
            "denied", "compute_mode", "starter", "pad",
        )
    ]  # fmt: skip
    _fields_ += [("init_s", _d)]
    _fields_ += [("pids", _i * 8), ("segments", Segment * 64), ("events", CounterEvent * 16)]

    def waves(self, *segments: Segment) -> None:
        """Power over time: each segment holds until the next one starts."""
        for number, segment in enumerate(sorted(segments, key=lambda s: s.start_s)):
            self.segments[number] = segment
        self.n_segments = len(segments)

    def add_event(self, kind: int, from_s: float, to_s: float = FOREVER, value_j: float = 0.0) -> None:
        """A fault of the energy counter."""
        self.events[self.n_events] = CounterEvent(from_s, to_s, value_j, kind)
        self.n_events += 1


class State(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint64), ("epoch_ns", ctypes.c_int64), ("wall_step_s", _d)]
    _fields_ += [("wall_step_at_s", _d), ("disk_full_from_s", _d), ("disk_full_to_s", _d)]
    _fields_ += [("disk_full_under", ctypes.c_char * 256)]
    _fields_ += [(n, _i) for n in ("n_gpus", "n_faults", "driver_missing", "cuda_version")]
    _fields_ += [("driver", ctypes.c_char * 32)]
    _fields_ += [("gpus", Gpu * 16), ("faults", FaultRule * 64)]
    _fields_ += [("function_names", (ctypes.c_char * 64) * 64), ("calls", (ctypes.c_uint64 * 17) * 64)]


def constant(start_s: float, power_w: float) -> Segment:
    return Segment(start_s, power_w, power_w, 1.0, 0.5, 0.0, CONSTANT)


def square(start_s, low_w, high_w, period_s, duty=0.5, phase_s=0.0) -> Segment:
    return Segment(start_s, low_w, high_w, period_s, duty, phase_s, SQUARE)


def sine(start_s, low_w, high_w, period_s, phase_s=0.0) -> Segment:
    return Segment(start_s, low_w, high_w, period_s, 0.5, phase_s, SINE)


def ramp(start_s, low_w, high_w, period_s) -> Segment:
    """From low to high in `period_s`, then high."""
    return Segment(start_s, low_w, high_w, period_s, 0.5, 0.0, RAMP)


def build(folder: Path) -> Path:
    """Compile libnvidia-ml.so.1 and libfakeos.so into `folder` with gcc; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["gcc", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation"]
    sources = {
        "libnvidia-ml.so.1": ("fake_nvml.c", "physics.c", "state.c"),
        "libfakeos.so": ("fake_os.c", "state.c"),
    }
    for library, names in sources.items():
        files = [str(HERE / name) for name in names]
        subprocess.run([*flags, "-o", str(folder / library), *files, "-lm", "-ldl"], check=True)
    return folder


def _square_integral(s: Segment, y: float) -> float:
    whole = math.floor(y / s.period_s)
    high_s = whole * s.duty * s.period_s + min(y - whole * s.period_s, s.duty * s.period_s)
    return s.low_w * y + (s.high_w - s.low_w) * high_s


def segment_energy_j(s: Segment, x: float) -> float:
    """Energy of a segment's first x seconds, in closed form."""
    swing, turn = 0.5 * (s.high_w - s.low_w), 2 * math.pi / s.period_s
    if s.wave == SQUARE:
        return _square_integral(s, x + s.phase_s) - _square_integral(s, s.phase_s)
    if s.wave == SINE:
        shape = math.cos(turn * s.phase_s) - math.cos(turn * (x + s.phase_s))
        return 0.5 * (s.high_w + s.low_w) * x + swing / turn * shape
    if s.wave == RAMP:
        r = min(x, s.period_s)
        return s.low_w * r + swing * r * r / s.period_s + s.high_w * (x - r)
    return s.low_w * x


class FakeNode:
    """A node with fake GPUs. `libraries` is what `build` returned."""

    def __init__(self, folder: Path, libraries: Path, gpus: int = 1):
        folder.mkdir(parents=True, exist_ok=True)
        self.libraries = libraries
        self.path = folder / "nvml.state"
        with open(self.path, "wb") as handle:
            handle.truncate(ctypes.sizeof(State))
        self.handle = open(self.path, "r+b")  # noqa: SIM115 - mapped for the life of the node
        self.state = State.from_buffer(mmap.mmap(self.handle.fileno(), 0))
        self.state.size = ctypes.sizeof(State)
        self.state.epoch_ns = time.monotonic_ns() - 2_000_000_000
        self.state.n_gpus = gpus
        self.state.driver, self.state.cuda_version = b"580.00.fake", 13000
        self.gpus = [self._gpu(index) for index in range(gpus)]

    def _gpu(self, index: int) -> Gpu:
        gpu = self.state.gpus[index]
        gpu.uuid = f"GPU-{index + 0x1A:08x}-1111-2222-3333-{index:012x}".encode()
        gpu.name = b"NVIDIA Fake H100"
        gpu.bus_id = f"00000000:{index + 1:02X}:00.0".encode()
        gpu.tick_s, gpu.tick_phase_s, gpu.counter_gain = 0.1, 0.013 * (index + 1), 1.0
        gpu.counter_start_j = 123456.789 + index
        gpu.refresh_s, gpu.sensor_window_s, gpu.sensor_gain = 0.1, 0.025, 1.0
        gpu.sensor_phase_s, gpu.sensor_noise_w = 0.041, 0.5
        gpu.limit_w, gpu.temperature_c, gpu.persistence, gpu.ecc = 700.0, 45.0, 1, 1
        gpu.capability_major = 9
        gpu.waves(constant(0.0, 100.0))
        return gpu

    @property
    def epoch_ns(self) -> int:
        return self.state.epoch_ns

    def now_s(self) -> float:
        return (time.monotonic_ns() - self.state.epoch_ns) * 1e-9

    def uuid(self, index: int) -> str:
        return self.gpus[index].uuid.decode()

    def fault(
        self, function, kind=RETURN_CODE, code=0, gpu=-1, field=0, from_s=0.0, to_s=FOREVER, seconds=0.0
    ) -> None:
        """Inject a fault: `function` by its name in the library, "*" for every call on the device."""
        rule = FaultRule(function.encode(), from_s, to_s, seconds, gpu, field, kind, code)
        self.state.faults[self.state.n_faults] = rule
        self.state.n_faults += 1

    def calls(self, function: str) -> int:
        """How often a function of the library was called, by all processes."""
        for number in range(64):
            if self.state.function_names[number].value.decode() == function:
                return sum(self.state.calls[number])
        return 0

    def called(self) -> set[str]:
        """Names of the functions called so far."""
        return {name.value.decode() for name in self.state.function_names if name.value}

    def environment(self, preload_os: bool = False, **extra: str) -> dict[str, str]:
        """The environment for a process that shall see this node (the loader reads it before the process
        starts)."""
        own = {"LD_LIBRARY_PATH": str(self.libraries), "FAKE_NVML_STATE": str(self.path)}
        if preload_os:
            own["LD_PRELOAD"] = str(self.libraries / "libfakeos.so")
        hidden = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "SLURM_JOB_ID")
        return {k: v for k, v in os.environ.items() if k not in hidden} | own | extra

    def true_energy_j(self, index: int, start_s: float, end_s: float) -> float:
        """Energy of a GPU between two times, in closed form."""
        return self._energy_until(index, end_s) - self._energy_until(index, start_s)

    def _energy_until(self, index: int, t: float) -> float:
        gpu = self.gpus[index]
        segments = gpu.segments[: gpu.n_segments]
        energy = 0.0
        for number, segment in enumerate(segments):
            if segment.start_s >= t:
                break
            end = min(t, segments[number + 1].start_s) if number + 1 < len(segments) else t
            energy += segment_energy_j(segment, end - segment.start_s)
        return energy
