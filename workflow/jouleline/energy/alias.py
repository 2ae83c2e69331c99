"""Whether a region's steps line up with the refresh of the instant power. Then sampling the power does not average it.

The sensor shows 25 ms out of every 100 ms (A100, H100). With step frequency f and refresh period R, samples see the
steps at the beat frequency |f - m/R|, m = round(f R). When few beats fit into the region, the samples see the same part
of every step. The integral of instant power is then wrong by up to the swing of the power inside a step.
"""

import numpy as np

from jouleline.energy.curve import US, power_readings
from jouleline.energy.load import Node, Series

FEWEST_BEATS = 3.0
FEWEST_STEPS = 10
# Without step marks: the integral of instant power is wrong by more than this share, and by more than its edges
# explain.
SHARE = 0.05
EDGE_S = 0.2
SHORTEST_S = 3.0
LONGEST_GAP_S = 0.3


def refresh_s(series: Series) -> float | None:
    """Observed refresh period of the instant power (s): the median time between changes of its value."""
    t_us, power_w = power_readings(series)
    changes = np.flatnonzero(np.diff(power_w) != 0)
    return float(np.median(np.diff(t_us[changes]))) * US if len(changes) > FEWEST_STEPS else None


def at_risk(node: Node, series: Series, row: dict, refresh: float | None) -> bool:
    """Whether steps and refresh line up in the region of `row`."""
    start, end, time_s = row["start_us"], row["end_us"], row["time_s"]
    for ranks in node.ranks:
        steps = ranks.step_us[(ranks.step_us >= start) & (ranks.step_us <= end)]
        if refresh is None or len(steps) < FEWEST_STEPS:
            continue
        frequency = 1.0 / max(float(np.median(np.diff(steps))) * US, 1e-6)
        multiple = round(frequency * refresh)
        if multiple >= 1 and abs(frequency - multiple / refresh) * time_s < FEWEST_BEATS:
            return True
    instant, energy = row["instant_energy_j"], row["energy_j"]
    if instant is None or energy is None or time_s < SHORTEST_S or row["method"] != "tick":
        return False
    # Where readings are missing, the integral of power is wrong for another reason.
    if row["longest_gap_s"] > LONGEST_GAP_S:
        return False
    t_us, power_w = power_readings(series)
    inside = power_w[(t_us >= start) & (t_us <= end)]
    swing = float(np.ptp(inside)) if len(inside) else 0.0
    off, average = abs(instant - energy), row["average_energy_j"]
    # If the average power contradicts the counter too, the counter is wrong.
    aliased = average is None or abs(average - energy) < 0.5 * off
    return aliased and off > SHARE * energy + EDGE_S * swing
