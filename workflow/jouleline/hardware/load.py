"""The load of the hardware check: a process that holds one GPU and puts known loads on it when asked.

    python -m jouleline.hardware.load

It says {"ready": ..., "device": ...} on stdout. Then it reads requests from stdin, one per line, such as {"kind":
"square", "seconds": 20, "period_s": 0.1}. It answers each with one line when the load is over: start_ns, end_ns
(CLOCK_MONOTONIC), on_s (how long the device was busy) and, for steps, step_s. It ends when stdin ends.
"""

import json
import sys
import time
from typing import Any

SIDE = 4096
LAYERS, WIDTH, ROWS = 24, 512, 32
SPIN_S = 0.002


class Load:
    """Loads of the first CUDA device."""

    def __init__(self):
        import torch

        self.torch = torch
        a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        out = torch.empty_like(a)
        self.product = lambda: torch.mm(a, b, out=out)
        x = torch.zeros(1, device="cuda")
        self.tiny = lambda: x.add_(1.0)
        layers = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))).cuda()
        rows = torch.randn(ROWS, WIDTH, device="cuda")
        # The host's launches limit it, as in small models. So a delay by the driver's readings becomes visible.
        self.step = lambda: layers(rows).sum().backward()
        for run in (self.product, self.tiny, self.step):
            run()
        self.wait()

    @property
    def device(self) -> str:
        return self.torch.cuda.get_device_name(0)

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def idle(self, seconds: float) -> dict[str, Any]:
        """Hold the device and do nothing."""
        time.sleep(seconds)
        return {"on_s": 0.0}

    def constant(self, seconds: float) -> dict[str, Any]:
        """Matrix products without a pause."""
        return {"on_s": self._busy(time.perf_counter() + seconds, self.product)}

    def wait_host(self, seconds: float) -> dict[str, Any]:
        """The device waits for the host between empty operations."""
        return {"on_s": self._busy(time.perf_counter() + seconds, self.tiny)}

    def square(self, seconds: float, period_s: float) -> dict[str, Any]:
        """Matrix products for half of each period, nothing for the other half, at absolute times."""
        begin, on_s = time.perf_counter(), 0.0
        for cycle in range(int(seconds / period_s)):
            start = begin + cycle * period_s
            on_s += self._busy(start + 0.5 * period_s, self.product)
            _sleep_until(start + period_s)
        return {"on_s": on_s}

    def steps(self, seconds: float) -> dict[str, Any]:
        """Training steps of a small model. Returns their times."""
        until, step_s = time.perf_counter() + seconds, []
        while (begin := time.perf_counter()) < until:
            self.step()
            self.wait()
            step_s.append(time.perf_counter() - begin)
        return {"on_s": sum(step_s), "step_s": step_s}

    def _busy(self, until: float, run) -> float:
        begin = time.perf_counter()
        while (now := time.perf_counter()) < until:
            run()
            self.wait()
        return now - begin


def _sleep_until(end: float) -> None:
    """Wait until time.perf_counter() is `end`, without the delay of a long sleep."""
    while (left := end - time.perf_counter()) > 0:
        if left > SPIN_S:
            time.sleep(left - SPIN_S)


def serve(load: Any) -> None:
    """Answer requests from stdin until it ends. `load` has a method for each kind, and `device`, a name."""
    print(json.dumps({"ready": time.monotonic_ns(), "device": load.device}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start_ns = time.monotonic_ns()
        answer = getattr(load, request.pop("kind"))(**request)
        print(json.dumps({"start_ns": start_ns, "end_ns": time.monotonic_ns(), **answer}), flush=True)


if __name__ == "__main__":
    serve(Load())
