"""The power trace of a run: its samples as power over time, and the regions its ranks marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN_S = 0.25  # an energy counter that moves every 20 to 100 ms needs bins well above that
_MOST_BINS = 400
_FAST_LANE = 0
_START, _END = 1, 2
REGIONS = ("warmup", "window", "evaluation")


@dataclass(frozen=True)
class Trace:
    """Power of the devices of one node over time, and the spans of its regions.

    `lines`: (device name, times [s], powers [W]); `spans`: region name -> (start, end) in s. Time 0 is the first span.
    `method` says what the power is made of; `node` is the node shown.
    """

    run: Mapping[str, Any]
    lines: list[tuple[str, list[float], list[float]]]
    spans: dict[str, tuple[float, float]]
    method: str
    node: int


def read(run: Mapping[str, Any], folder: Path) -> Trace | None:
    """The trace of a run from the samples and markers in its folder; None where there is none to draw."""
    samples = _read(folder / "samples.parquet", ["node", "device", "lane", "t_us", "energy_mj", "power_mw"])
    markers = _read(folder / "markers.parquet", ["node", "rank", "kind", "t_ns", "id", "name"])
    if samples is None or markers is None or not len(samples["t_us"]):
        return None
    node = int(samples["node"].min())
    spans = _spans(markers, node)
    here = (samples["node"] == node) & (samples["lane"] == _FAST_LANE)
    if not here.any():
        return None
    origin = min(start for start, _ in spans.values()) if spans else samples["t_us"][here].min() / 1e6
    lines, methods = [], set()
    for device in sorted(set(samples["device"][here].tolist())):
        chosen = here & (samples["device"] == device)
        times, powers, method = _power(samples, chosen)
        if len(times) > 1:
            lines.append((f"device {device}", (times - origin).tolist(), powers.tolist()))
            methods.add(method)
    if not lines:
        return None
    shifted = {name: (start - origin, end - origin) for name, (start, end) in spans.items()}
    return Trace(run, lines, shifted, " and ".join(sorted(methods)), node)


def _read(path: Path, names: list[str]):
    """Columns as numpy arrays (null is NaN), or None where the file is missing or not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=names)
    except (OSError, pa.ArrowInvalid):
        return None
    if set(names) - set(table.column_names):
        return None
    return {name: table[name].to_numpy() for name in names}


def _spans(markers, node: int) -> dict[str, tuple[float, float]]:
    """Regions of the lowest rank of the node, in s of its monotonic clock; the first of each name."""
    here = markers["node"] == node
    if not here.any():
        return {}
    here &= markers["rank"] == markers["rank"][here].min()
    rows = list(zip(*(markers[key][here].tolist() for key in ("kind", "id", "t_ns", "name")), strict=True))
    ends = {identity: t for kind, identity, t, _ in rows if kind == _END}
    spans: dict[str, tuple[float, float]] = {}
    for kind, identity, t, name in rows:
        if kind == _START and name in REGIONS and identity in ends:
            spans.setdefault(name, (t / 1e9, ends[identity] / 1e9))
    return spans


def _power(samples, chosen):
    """(times s, powers W, method): slope of the energy counter in bins; without a counter, the sampled power."""
    import numpy as np

    t = samples["t_us"][chosen].astype(float) / 1e6
    order = np.argsort(t, kind="stable")
    t = t[order]
    energy = samples["energy_mj"][chosen].astype(float)[order] / 1e3
    power = samples["power_mw"][chosen].astype(float)[order] / 1e3
    good = np.isfinite(energy)
    if good.sum() > 2:
        t, energy = t[good], energy[good]
        width = max(BIN_S, (t[-1] - t[0]) / _MOST_BINS)
        edges = np.unique(np.concatenate([np.searchsorted(t, np.arange(t[0], t[-1], width)), [len(t) - 1]]))
        t, energy = t[edges], energy[edges]
        keep = np.diff(t) > 0
        slopes = np.diff(energy)[keep] / np.diff(t)[keep]
        # A counter that was reset runs backwards: a gap in the line, not a negative power.
        slopes[slopes < 0] = np.nan
        return (t[:-1] + np.diff(t) / 2)[keep], slopes, f"slope of the energy counter in {width:.2g} s bins"
    good = np.isfinite(power)
    t, power = t[good], power[good]
    stride = max(1, len(t) // _MOST_BINS)
    return t[::stride], power[::stride], "sampled power"
