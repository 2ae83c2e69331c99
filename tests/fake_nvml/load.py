"""The load of the hardware check on a fake node: what a real GPU would do is laid into the fake's waveforms.

python -m fake_nvml.load STATE_FILE
"""

import ctypes
import mmap
import sys
import time

from fake_nvml.driver import State, constant, square
from jouleline.hardware.load import serve

IDLE_W, CONTEXT_W, WAIT_W, HIGH_W = 70.0, 110.0, 150.0, 600.0


class FakeLoad:
    """Loads of the first fake GPU: each is a segment of its power, from now on."""

    device = "NVIDIA Fake H100"

    def __init__(self, path: str):
        with open(path, "r+b") as handle:
            self.state = State.from_buffer(mmap.mmap(handle.fileno(), ctypes.sizeof(State)))
        self.gpu = self.state.gpus[0]
        self._from_now(constant, CONTEXT_W)

    def _from_now(self, wave, *shape) -> None:
        now_s = (time.monotonic_ns() - self.state.epoch_ns) * 1e-9
        # Written before it counts: the library reads the segments at any moment.
        self.gpu.segments[self.gpu.n_segments] = wave(now_s, *shape)
        self.gpu.n_segments += 1

    def _hold(self, seconds: float, wave, *shape) -> None:
        self._from_now(wave, *shape)
        time.sleep(seconds)
        self._from_now(constant, CONTEXT_W)

    def idle(self, seconds):
        self._hold(seconds, constant, CONTEXT_W)
        return {"on_s": 0.0}

    def constant(self, seconds):
        self._hold(seconds, constant, HIGH_W)
        return {"on_s": seconds}

    def wait_host(self, seconds):
        self._hold(seconds, constant, WAIT_W)
        return {"on_s": seconds}

    def square(self, seconds, period_s):
        self._hold(seconds, square, CONTEXT_W, HIGH_W, period_s)
        return {"on_s": 0.5 * seconds}

    def steps(self, seconds):
        until, times = time.perf_counter() + seconds, []
        while (begin := time.perf_counter()) < until:
            sum(range(20_000))
            times.append(time.perf_counter() - begin)
        return {"on_s": sum(times), "step_s": times}


if __name__ == "__main__":
    serve(FakeLoad(sys.argv[1]))
