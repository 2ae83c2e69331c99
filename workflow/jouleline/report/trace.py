"""The power trace of a run: its samples as power over time, and the regions that its ranks marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jouleline.errors import UserError

BIN_S = 0.25  # an energy counter moves every 20 to 100 ms, so bins must be well above that
_MOST_BINS = 400
REGIONS = ("warmup", "window", "evaluation")


@dataclass(frozen=True)
class Trace:
    """Power of the job's devices on one node over time, and the spans of its regions.

    `lines`: (device name, times [s], powers [W]). `spans`: region -> (start, end) in s. Time 0 is the start of the
    first span. `method` says where the power comes from. `devices` is the number of metered devices on all nodes.
    """

    run: Mapping[str, Any]
    lines: list[tuple[str, list[float], list[float]]]
    spans: dict[str, tuple[float, float]]
    method: str
    node: int
    devices: int


def read(run: Mapping[str, Any], folder: Path) -> Trace | None:
    """The trace of a run's first node. None where the run left nothing to draw."""
    from jouleline.energy.load import load_run

    try:
        measurement = load_run(folder)
    except UserError:
        return None
    jobs = [[s for s in node.devices if s.info.get("role") == "job"] for node in measurement.nodes]
    if not jobs or not jobs[0]:
        return None
    node = measurement.nodes[0]
    lines, methods = [], set()
    for series in jobs[0]:
        times, powers, method = _power(series.fast)
        if len(times) > 1:
            lines.append((f"device {series.info.get('index')}", times, powers))
            methods.add(method)
    if not lines:
        return None
    spans = _spans(node.ranks)
    origin = min(start for start, _ in spans.values()) if spans else min(times[0] for _, times, _ in lines)
    lines = [(name, (times - origin).tolist(), powers.tolist()) for name, times, powers in lines]
    spans = {name: (start - origin, end - origin) for name, (start, end) in spans.items()}
    return Trace(run, lines, spans, " and ".join(sorted(methods)), node.number, sum(map(len, jobs)))


def _spans(ranks) -> dict[str, tuple[float, float]]:
    """Regions of the node's first rank, in s of its monotonic clock. The first one of each name that was ended."""
    spans: dict[str, tuple[float, float]] = {}
    for rank in ranks[:1]:
        for name, start, end in zip(rank.name, rank.start_us, rank.end_us, strict=True):
            if name in REGIONS and end == end:
                spans.setdefault(name, (float(start) / 1e6, float(end) / 1e6))
    return spans


def _power(fast):
    """(times s, powers W, method): slope of the energy counter in bins. Without a counter, the sampled power."""
    import numpy as np

    good = np.isfinite(fast["energy_mj"])
    if good.sum() > 2:
        t, energy = fast["t_us"][good] / 1e6, fast["energy_mj"][good] / 1e3
        width = max(BIN_S, (t[-1] - t[0]) / _MOST_BINS)
        edges = np.searchsorted(t, np.arange(t[0], t[-1], width))
        edges = np.unique(np.concatenate([edges, [len(t) - 1]]))
        t, energy = t[edges], energy[edges]
        slopes = np.diff(energy) / np.diff(t)
        # A counter that was reset runs backwards. This becomes a gap in the line, not a negative power.
        slopes[slopes < 0] = np.nan
        return t[:-1] + np.diff(t) / 2, slopes, f"slope of the energy counter in {width:.2g} s bins"
    good = np.isfinite(fast["power_mw"])
    stride = max(1, int(good.sum()) // _MOST_BINS)
    t, power = fast["t_us"][good] / 1e6, fast["power_mw"][good] / 1e3
    return t[::stride], power[::stride], "sampled power"
