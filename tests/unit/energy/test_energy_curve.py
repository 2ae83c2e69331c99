"""Energy curves from made-up readings with known energy: long stalls, mismatches, power only, speed."""

import numpy as np
import pytest
from jouleline.energy.curve import average_curve, counter_curve
from jouleline.energy.load import Series
from jouleline.energy.ticks import locate
from jouleline.schemas.samples import SAMPLES
from made_up import POWER_W, TICK_S, fast_lane, measured, slow_lane


def test_a_steady_load_is_exact_and_valid():
    row = measured(fast_lane(70), slow_lane(70), 2.0, 64.0)
    assert row["energy_j"] == pytest.approx(POWER_W * 62, rel=5e-5)
    assert (row["verdict"], row["reasons"], row["method"]) == ("valid", "", "tick")
    assert row["tick_period_s"] == pytest.approx(TICK_S, rel=0.01)
    assert row["energy_gain_u_j"] == pytest.approx(row["energy_j"] * 0.05 / 3**0.5)


@pytest.mark.fault("counter frozen 5 s and 60 s, energy lost", "`counter_stuck`, bridged by power")
@pytest.mark.parametrize("seconds", [5.0, 60.0])
def test_a_long_stall_is_bridged_by_power(seconds):
    def stalled(t):
        return POWER_W * np.where(t < 10, t, np.maximum(10.0, t - seconds))

    row = measured(fast_lane(90, stalled), slow_lane(90), 2.0, 85.0)
    assert "counter_stuck" in row["reasons"] and row["verdict"] == "degraded"
    assert row["energy_j"] == pytest.approx(POWER_W * 83, rel=0.01)
    assert row["energy_gap_u_j"] > 0


def test_a_stall_without_power_is_not_trusted():
    fast = fast_lane(90, lambda t: POWER_W * np.where(t < 10, t, np.maximum(10.0, t - 60)))
    fast["power_mw"][:] = np.nan
    row = measured(fast, slow_lane(90), 2.0, 85.0)
    assert row["verdict"] == "invalid" and row["energy_j"] is None


@pytest.mark.fault(
    "counter off by 5 % and by 20 %", "`counter_mismatch`; from 10 % on `counter_contradicted`, no energy"
)
@pytest.mark.parametrize(
    ("factor", "code", "verdict"),
    [(1.02, "", "valid"), (1.05, "counter_mismatch", "degraded"), (1.2, "counter_contradicted", "invalid")],
)
def test_counter_against_average_power(factor, code, verdict):
    row = measured(fast_lane(70, lambda t: factor * POWER_W * t), slow_lane(70), 2.0, 64.0)
    assert row["reasons"] == code and row["verdict"] == verdict
    assert (row["energy_j"] is None) == (verdict == "invalid")


def test_without_a_counter_the_average_power_is_integrated():
    fast = fast_lane(30)
    fast["energy_mj"][:] = np.nan
    row = measured(fast, slow_lane(30), 5.0, 25.0)
    assert (row["energy_source"], row["method"], row["reasons"]) == (
        "nvml_power",
        "average_power",
        "no_counter",
    )
    assert row["energy_j"] == pytest.approx(POWER_W * 20, rel=1e-3)


def test_a_region_outside_the_readings_has_no_energy():
    for start, end in ((-1.0, 5.0), (5.0, 40.0)):
        row = measured(fast_lane(30), slow_lane(30), start, end)
        assert row["energy_j"] is None and "edges_unbracketed" in row["reasons"]


def test_a_region_without_an_end_counts_to_the_last_reading():
    row = measured(fast_lane(30), slow_lane(30), 5.0, float("nan"))
    assert row["reasons"] == "truncated" and row["verdict"] == "degraded"
    assert row["energy_j"] == pytest.approx(POWER_W * 25, rel=0.01)


def test_a_hole_in_the_readings_hides_no_stall():
    """Energy is lost in a second in which the counter stood still and half of the readings are missing."""
    fast = fast_lane(30, lambda t: POWER_W * np.where(t < 10, t, np.maximum(10.0, t - 1.0)))
    seen = ~((fast["t_us"] > 10.2e6) & (fast["t_us"] < 10.6e6))
    row = measured({name: values[seen] for name, values in fast.items()}, slow_lane(30), 2.0, 28.0)
    assert "counter_stuck" in row["reasons"]
    assert row["energy_j"] == pytest.approx(POWER_W * 26, rel=0.01)


@pytest.mark.fault("regions of no length, or shorter than 3 ticks", "`zero_length`, `too_few_ticks`")
@pytest.mark.parametrize(("length_s", "code"), [(0.0, "zero_length"), (0.12, "too_few_ticks")])
def test_regions_too_short(length_s, code):
    row = measured(fast_lane(10), slow_lane(10), 4.0, 4.0 + length_s)
    assert code in row["reasons"] and row["verdict"] != "valid"


def test_throttling_drift_and_limits_are_seen():
    slow = slow_lane(30)
    slow["throttle_hw_thermal_ns"] = np.linspace(0, 30e9, len(slow["t_us"]))
    slow["temperature_c"] = np.linspace(40, 80, len(slow["t_us"]))
    slow["power_limit_mw"] = np.where(slow["t_us"] < 15e6, 7e5, 4e5)
    row = measured(fast_lane(30), slow, 2.0, 28.0)
    assert {"throttled", "thermal_drift", "limits_changed"} <= set(row["reasons"].split(","))
    assert row["throttle_thermal_fraction"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.fault(
    "region too short for its polling", "`edge_uncertain`; from 10 % on `edge_too_uncertain`, no energy"
)
@pytest.mark.parametrize(("length_s", "code"), [(0.4, "edge_uncertain"), (0.15, "edge_too_uncertain")])
def test_edges_too_coarse_for_the_region(length_s, code):
    # Every third reading: a tick is known to 60 ms, and no line through the ticks is believed.
    fast = {name: values[::3] for name, values in fast_lane(30).items()}
    row = measured(fast, slow_lane(30), 10.03, 10.03 + length_s)
    assert code in row["reasons"].split(",")
    assert (row["energy_j"] is None) == (code == "edge_too_uncertain")


@pytest.mark.fault(
    "no counter, and instant power that contradicts the average", "`alias_error`, `no_counter`"
)
def test_instant_power_that_contradicts_the_average():
    fast = fast_lane(30, power_w=400.0)
    fast["energy_mj"][:] = np.nan
    row = measured(fast, slow_lane(30), 5.0, 12.0)
    assert row["method"] == "instant_power" and row["verdict"] == "degraded"
    assert {"alias_error", "no_counter"} == set(row["reasons"].split(","))


@pytest.mark.fault(
    "no average power, clocks, temperature or processes",
    "`unchecked_average`, `unchecked_state`, `unchecked_processes`",
)
def test_what_cannot_be_checked_is_said():
    slow = {name: np.array([]) for name in SAMPLES.names}
    row = measured(fast_lane(70), slow, 2.0, 64.0)
    assert {"unchecked_average", "unchecked_state", "unchecked_processes"} == set(row["reasons"].split(","))
    assert row["verdict"] == "valid" and row["energy_j"] is not None


def test_curves_never_fall():
    rng = np.random.default_rng(0)
    energies = np.cumsum(rng.uniform(0, 60, 10_000))
    lane = fast_lane(60, lambda t: energies[np.round(t / TICK_S).astype(int)])
    info = {"counter": "ticking"}
    for curve in (
        counter_curve(Series(info, lane, slow_lane(60))),
        average_curve(Series(info, lane, slow_lane(60))),
    ):
        assert (np.diff(curve.energy_j) >= 0).all() and (np.diff(curve.t_us) > 0).all()


def ticks_seen(tick_us: np.ndarray, poll_us: float) -> tuple[np.ndarray, np.ndarray]:
    """Intervals between polls that hold the ticks (the first of each interval)."""
    polls = np.unique(np.floor(tick_us / poll_us))
    return polls * poll_us, (polls + 1) * poll_us


def test_regular_ticks_are_located_within_a_fraction_of_a_poll():
    tick_us = 3000.0 + 100_000.0 * np.arange(600)
    low, high = ticks_seen(tick_us, 19_687.5)
    found, half = locate(low, high, np.ones(len(low), bool))
    assert np.abs(found - tick_us).max() < 3000 and half.max() < 3000


@pytest.mark.parametrize("kind", ["irregular", "faster than the polls"])
def test_other_ticks_keep_their_intervals(kind):
    rng = np.random.default_rng(0)
    gaps = rng.uniform(60_000, 140_000, 500) if kind == "irregular" else np.full(3000, 20_000.0)
    low, high = ticks_seen(np.cumsum(gaps), 19_687.5)
    found, half = locate(low, high, np.ones(len(low), bool))
    assert np.array_equal(found, 0.5 * (low + high)) and np.array_equal(half, 0.5 * (high - low))
