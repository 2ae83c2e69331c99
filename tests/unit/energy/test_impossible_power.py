"""Devices that report a power that none has: no energy, and the reason."""

import numpy as np
import pytest
from made_up import POWER_W, fast_lane, measured, slow_lane

NEVER_W = [0.0, 0.01, 4294967.295]  # the last is 2^32 - 1 mW, which stands for "not known"


def without_counter(power_w: float):
    lane = fast_lane(30, power_w=power_w)
    return lane | {"energy_mj": np.full(len(lane["t_us"]), np.nan)}


@pytest.mark.fault("a GPU that reports 0 W, or the largest number there is", "`impossible_power`, no energy")
@pytest.mark.parametrize("power_w", NEVER_W)
@pytest.mark.parametrize("average", [True, False])
def test_a_power_that_no_device_has_is_no_energy(power_w, average):
    slow = slow_lane(30, power_w)
    if not average:
        slow["power_average_mw"] *= np.nan
    row = measured(without_counter(power_w), slow, 4, 24)
    assert row["verdict"] == "invalid" and row["energy_j"] is None
    assert "impossible_power" in row["reasons"].split(",")


@pytest.mark.parametrize("power_w", [0.2, POWER_W, 90_000.0])
def test_one_that_a_device_may_have_stands(power_w):
    row = measured(without_counter(power_w), slow_lane(30, power_w), 4, 24)
    assert row["reasons"] == "no_counter" and row["energy_j"] == pytest.approx(20 * power_w)
