"""The stretch of time over which each device is measured: the regions of the ranks that run on it."""

from dataclasses import dataclass

import numpy as np

from jouleline.energy.load import Node, Regions, Series
from jouleline.measure.raw.markers import NODE_RANK


@dataclass
class Windows:
    """Regions of one device: arrays of equal length. `end_us` is NaN for a region that was never closed."""

    name: list[str]
    ordinal: np.ndarray
    parent: list[str | None]
    start_us: np.ndarray
    end_us: np.ndarray
    steps: np.ndarray
    ranks: list[int]


def ranks_of(node: Node, series: Series) -> list[Regions]:
    """The ranks whose regions apply to a device: those that report its UUID (for a MIG slice its parent's), those that
    report none, and the node's own. If no rank reports this device: all ranks of the node."""
    uuids = {series.info["uuid"], *(series.info.get("mig") or [])}
    paired = [r for r in node.ranks if node.rank_devices.get(r.rank) in uuids]
    if not paired:
        return list(node.ranks)
    loose = [r for r in node.ranks if r.rank not in node.rank_devices]
    return paired + [r for r in loose if r not in paired]


def windows_of(node: Node, series: Series) -> Windows:
    """Regions of the device's ranks, joined by name and number: from the first start to the last end."""
    ranks = ranks_of(node, series)
    numbers = [r.rank for r in ranks if r.rank != NODE_RANK]
    if len(ranks) == 1:
        r = ranks[0]
        return Windows(r.name, r.ordinal, r.parent, r.start_us, r.end_us, r.steps, numbers)
    joined: dict[tuple[str, int], list] = {}
    for r in ranks:
        for name, ordinal, parent, start, end, steps in zip(
            r.name, r.ordinal.tolist(), r.parent, r.start_us.tolist(), r.end_us.tolist(), r.steps.tolist()
        ):
            known = joined.get((name, ordinal))
            if known is None:
                joined[name, ordinal] = [name, ordinal, parent, start, end, steps]
            else:
                known[3] = min(known[3], start)
                # If the end is missing on one rank, it is missing: np.maximum keeps its nan.
                known[4] = float(np.maximum(known[4], end))
                known[5] = max(known[5], steps)
    columns = list(zip(*sorted(joined.values(), key=lambda item: item[3]))) or [()] * 6
    arrays = [np.array(columns[k], dtype=np.float64) for k in (3, 4)]
    ordinal, steps = (np.array(columns[k], dtype=np.int64) for k in (1, 5))
    return Windows(list(columns[0]), ordinal, list(columns[2]), *arrays, steps, numbers)
