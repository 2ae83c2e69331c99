"""Arithmetic of the calibration: repeats, entries, the saturation curve. No process, no meter."""

import time

import numpy as np
import pytest
from jouleline.energy.node_power import _power
from jouleline.measure.calibrate.device import half_saturation
from jouleline.measure.calibrate.timing import blocks, from_times, keep_busy, repeat

SIZES = [2.0 * side**3 for side in (32, 64, 128, 256, 512, 1024)]


def nothing() -> None:
    pass


@pytest.mark.parametrize("x_half", [1e5, 3e6, 5e7])
def test_half_saturation_finds_the_truth(x_half):
    noise = np.array([1.02, 0.98, 1.01, 0.99, 1.02, 0.98])
    rates = [9e10 * x / (x + x_half) * wiggle for x, wiggle in zip(SIZES, noise)]
    found, spread = half_saturation(SIZES, rates)
    assert found == pytest.approx(x_half, rel=0.25)
    assert 0 < spread < 0.6


def test_a_curve_that_does_not_bend_has_no_half_saturation():
    assert half_saturation(SIZES, [9e10] * 6) == (None, None)
    assert half_saturation(SIZES[:3], [1e10, 2e10, 3e10]) == (None, None)


def test_repeat_times_one_call_and_keeps_to_its_time():
    begin = time.perf_counter()
    times_s = repeat(lambda: time.sleep(0.002), nothing, 0.2)
    assert 3 <= len(times_s) <= 100 and min(times_s) > 0.0019
    assert sum(times_s) < time.perf_counter() - begin < 20


def test_the_wait_is_inside_every_block():
    times_s = blocks(nothing, lambda: time.sleep(0.01), count=3, calls=2)
    assert np.all(times_s >= 0.005)


def test_keep_busy_lasts_as_long_as_it_is_told():
    begin = time.perf_counter()
    keep_busy(nothing, nothing, 0.1)
    assert 0.1 <= time.perf_counter() - begin < 20


def test_an_entry_is_the_median_with_its_spread():
    found = from_times("memory_bandwidth_copy", 8.0, np.array([1.0, 2.0, 2.0, 2.2, 9.0]), "made up", size=4.0)
    assert found["value"] == 4.0
    assert found["unit"] == "B/s"
    assert found["n"] == 5
    assert found["u_rel"] == pytest.approx(1.4826 * 0.2 / 2)


def region_row(**change):
    row = {
        "energy_j": 30.0,
        "time_s": 2.0,
        "verdict": "valid",
        "reasons": "",
        "energy_source": "nvml_counter",
    }
    return row | {"method": "tick", "energy_edge_u_j": 0.3, "energy_gain_u_j": 0.4} | change


def test_power_is_energy_over_time_per_device():
    found = _power("active_wait_comm_power_w", [region_row(), region_row()], share=2)
    assert found["value"] == 15.0
    assert found["u_rel"] == pytest.approx((2 * 0.25) ** 0.5 / 60)
    assert "nvml_counter" in found["method"]


@pytest.mark.parametrize("change", [{"verdict": "invalid", "reasons": "gap"}, {"energy_j": None}])
def test_power_that_cannot_be_had_is_null_never_zero(change):
    found = _power("idle_power_w", [region_row(**change)], share=1)
    assert found["value"] is None
    assert "not measured" in found["method"]


def test_an_unknown_uncertainty_is_null():
    assert _power("idle_power_w", [region_row(energy_gain_u_j=None)], share=1)["u_rel"] is None
