"""What one device can do (matrix multiplications, memory, launches), and the loads for measuring its power."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from jouleline.measure.calibrate.timing import from_times, keep_busy, repeat
from jouleline.measure.raw.markers import region
from jouleline.schemas.calibration import entry

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLEST = {"cpu": 32, "cuda": 128}
_LARGEST = {"cpu": 4096, "cuda": 16384}
_ARRAY_BYTE = {"cpu": 1 << 27, "cuda": 1 << 30}
_CHAIN = 32


class Bench:
    """Measurements of one torch device. Each takes about `slot_s` seconds."""

    def __init__(self, device: torch.device, slot_s: float):
        self.device = device
        self.slot_s = slot_s
        self.wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def measure(self) -> Iterator[dict[str, Any]]:
        """Every quantity of this module, as entries of the calibration table."""
        for precision in _TYPES:
            yield from self.matmul(precision)
        yield from self.memory()
        yield from self.overheads()

    def matmul(self, precision: str) -> Iterator[dict[str, Any]]:
        """The rate of square products of growing size, the best rate, and the half-saturation size."""
        if precision == "fp16" and self.device.type == "cpu":
            reason = "fp16 does not train on a CPU"
            yield entry("peak_flops", None, reason, precision=precision)
            yield entry("half_saturation_flop", None, reason, precision=precision)
            return
        curve = []
        side = _SMALLEST[self.device.type]
        while side <= _LARGEST[self.device.type]:
            times_s = repeat(self._product(side, precision), self.wait, self.slot_s)
            flop = 2.0 * side**3
            method = f"square matrices of {side}, back to back"
            curve.append(from_times("matmul_flops", flop, times_s, method, precision=precision, size=flop))
            # The next size takes eight times as long.
            if 8 * float(np.median(times_s)) > self.slot_s:
                break
            side *= 2
        yield from curve
        best = max(curve, key=lambda point: point["value"])
        yield best | {
            "quantity": "peak_flops",
            "size": None,
            "method": "best of all sizes: " + best["method"],
        }
        half, spread = half_saturation([c["size"] for c in curve], [c["value"] for c in curve])
        method = "fit of F x/(x + x_half) to the curve"
        yield entry("half_saturation_flop", half, method, precision=precision, u_rel=spread, n=len(curve))

    def memory(self) -> Iterator[dict[str, Any]]:
        """Bandwidth of copy and triad over arrays larger than any cache."""
        for name, moved in (("copy", 2), ("triad", 3)):
            run, size = self._stream(name)
            times_s = repeat(run, self.wait, 2 * self.slot_s)
            method = f"fp32 arrays of {size >> 20} MiB"
            yield from_times(
                f"memory_bandwidth_{name}", moved * size, times_s, method, size=float(moved * size)
            )

    def overheads(self) -> Iterator[dict[str, Any]]:
        """Cost of an operation with nothing to do, and of a layer with nothing to do."""
        times_s = repeat(self._tiny(), self.wait, self.slot_s)
        yield from_times("launch_overhead_s", 0, times_s, "in-place add on one element, many in a row")
        times_s = repeat(self._tiny_layers(), self.wait, self.slot_s) / _CHAIN
        method = f"Linear(16, 16) on one row, forward and backward, of a chain of {_CHAIN}"
        yield from_times("host_overhead_s", 0, times_s, method)

    def loads(self, seconds: float) -> None:
        """Hold each power state for `seconds`, in a region with its name."""
        with region("context_idle"):
            time.sleep(seconds)
        tiny = self._tiny()

        def one_by_one() -> None:
            tiny()
            self.wait()

        side = 4096 if self.device.type == "cuda" else 1024
        precision = "fp32"
        if self.device.type == "cuda":
            # Where bf16 is emulated, the tensor cores would do nothing.
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        loads = {
            "active_wait_host": one_by_one,
            "memory_bound": self._stream("triad")[0],
            "compute_bound": self._product(side, precision),
        }
        for name, run in loads.items():
            with region(name):
                keep_busy(run, self.wait, seconds)

    def _product(self, side: int, precision: str) -> Callable[[], Any]:
        a, b = (torch.randn(side, side, device=self.device).to(_TYPES[precision]) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    def _stream(self, name: str) -> tuple[Callable[[], Any], int]:
        """The operation, and the bytes of one of its arrays."""
        size = _ARRAY_BYTE[self.device.type]
        a, b, c = (torch.full((size // 4,), value, device=self.device) for value in (0.0, 1.0, 2.0))
        if name == "copy":
            return lambda: a.copy_(b), size
        return lambda: torch.add(b, c, alpha=3.0, out=a), size

    def _tiny(self) -> Callable[[], Any]:
        x = torch.zeros(1, device=self.device)
        return lambda: x.add_(1.0)

    def _tiny_layers(self) -> Callable[[], Any]:
        layers = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(_CHAIN))).to(self.device)
        x = torch.ones(1, 16, device=self.device)
        return lambda: layers(x).sum().backward()


def half_saturation(sizes: list[float], rates: list[float]) -> tuple[float | None, float | None]:
    """(x_half in FLOP, its relative standard deviation) of rate = F x/(x + x_half), least squares in log rate.

    For a given x_half the best log F is a mean, so the search has one dimension. The deviation comes from leaving out
    one size at a time. None for fewer than 4 sizes, where the curve does not bend inside them, and where the deviation
    is 1 or more.
    """
    x, y = np.log(np.array(sizes)), np.log(np.array(rates))
    grid = np.linspace(x[0] - np.log(100), x[-1], 2000) if len(x) >= 4 else np.empty(0)

    def fit(keep: np.ndarray) -> float:
        residual = y[keep] - x[keep] + np.logaddexp(x[keep], grid[:, None])
        return float(grid[np.argmin(np.var(residual, axis=1))])

    if not len(grid):
        return None, None
    best = fit(np.ones(len(x), bool))
    if best in (grid[0], grid[-1]):
        return None, None
    left_out = np.array([fit(np.arange(len(x)) != skip) for skip in range(len(x))])
    spread = np.sqrt((len(x) - 1) * np.mean((left_out - left_out.mean()) ** 2))  # jackknife
    return (float(np.exp(best)), float(spread)) if spread < 1 else (None, None)
