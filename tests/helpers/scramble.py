"""A table in which everything is changed that was measured on some rows."""

import numpy as np

# What is known of a run only when it is over. `steps` is among them, because the protocol ends a window by the clock.
MEASURED = ("time_s", "energy_j", "mean_power_w", "idle_power_w", "host_energy_j", "loss_first", "loss_last")


def scrambled(columns, held):
    """The table with everything that was measured on the rows `held` changed."""
    rng = np.random.default_rng(9)
    other = dict(columns)
    factor = np.where(held, rng.integers(2, 9, len(held)), 1)
    for name in ("steps", "samples", "tokens"):
        other[name] = columns[name] * factor
    for name in MEASURED:
        other[name] = columns[name].astype(float)
        other[name][held] = rng.permutation(columns[name][held]) * rng.uniform(0.3, 3, held.sum())
    return other
