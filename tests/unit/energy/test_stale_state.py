"""What was read too long ago, or not at all, is unknown: null and reported, never the last value and never 0."""

import numpy as np
import pytest
from made_up import POWER_W, fast_lane, measured, slow_lane

STATE = ("temperature_end_c", "temperature_max_c", "sm_clock_mhz", "throttle_thermal_fraction")


def only(slow: dict, *stretches: tuple[float, float]) -> dict:
    """The readings of the stretches (s) alone."""
    t_s = slow["t_us"] * 1e-6
    kept = np.any([(t_s >= first) & (t_s < last) for first, last in stretches], axis=0)
    return {name: values[kept] for name, values in slow.items()}


def said(row: dict) -> set[str]:
    return set(filter(None, row["reasons"].split(",")))


@pytest.mark.parametrize(("start_s", "end_s"), [(12, 24), (4, 24), (12, 14)])
def test_a_state_lane_that_stopped_is_unknown(start_s, end_s):
    row = measured(fast_lane(30), only(slow_lane(30), (0, 7)), start_s, end_s)
    assert "unchecked_state" in said(row) and [row[name] for name in STATE] == [None] * 4
    assert ("unchecked_average" in said(row)) == (end_s - start_s >= 10)
    assert row["energy_j"] == pytest.approx(POWER_W * (end_s - start_s), rel=1e-3)


@pytest.mark.parametrize(("start_s", "end_s"), [(5.6, 5.9), (5.6, 6.6), (5.6, 8.4), (2.0, 27.9)])
def test_readings_just_outside_a_region_are_enough(start_s, end_s):
    row = measured(fast_lane(30), slow_lane(30), start_s, end_s)
    assert row["reasons"] == "" and None not in [row[name] for name in STATE]


def test_a_change_that_was_seen_before_the_lane_stopped_is_said():
    slow = slow_lane(30)
    slow["power_limit_mw"] = np.where(slow["t_us"] < 4e6, 7e5, 4e5)
    row = measured(fast_lane(30), only(slow, (0, 7)), 3.0, 24.0)
    assert {"limits_changed", "unchecked_state"} <= said(row) and row["temperature_end_c"] is None


def test_processes_that_were_seen_long_ago_say_nothing():
    slow = slow_lane(40)
    slow["foreign_processes"][slow["t_us"] > 10e6] = np.nan
    assert measured(fast_lane(40), slow, 14.0, 18.0)["reasons"] == ""
    assert said(measured(fast_lane(40), slow, 25.0, 29.0)) == {"unchecked_processes"}
    assert said(measured(fast_lane(40), slow, 8.0, 29.0)) == {"unchecked_processes"}


def stuck(lane: str, t_s: float) -> dict:
    return {"kind": "call_stuck", "lane": lane, "device": 0, "after_ms": 1000, "t_us": t_s * 1e6}


def test_a_stuck_call_is_slow_until_the_lane_reads_again():
    slow, events = only(slow_lane(40), (0, 7), (20, 40)), [stuck("state", 8.6)]
    slow["call_us"][6] = 13.9e6  # called at 6.5 s, it returned at 20.4 s
    verdicts = [said(measured(fast_lane(40), slow, t, t + 3, events)) for t in (2.0, 10.0, 17.0, 24.0)]
    assert ["slow_calls" in codes for codes in verdicts] == [False, True, True, False]
    for_good = [said(measured(fast_lane(40), only(slow, (0, 6)), t, t + 3, events)) for t in (2.0, 30.0)]
    assert ["slow_calls" in codes for codes in for_good] == [False, True]


@pytest.mark.fault("a driver call that began before the region and is slow in it", "`slow_calls`")
def test_a_call_that_reaches_into_the_region_is_slow():
    fast = fast_lane(20)
    fast["call_us"][np.searchsorted(fast["t_us"], 4.95e6)] = 15e4
    called = (fast["t_us"] < 4.97e6) | (fast["t_us"] > 5.12e6)
    fast = {name: values[called] for name, values in fast.items()}
    assert "slow_calls" in said(measured(fast, slow_lane(20), 5.0, 9.0))
    assert "slow_calls" not in said(measured(fast, slow_lane(20), 6.0, 9.0))


def test_the_average_power_says_nothing_of_a_pause_in_it():
    """Power doubles for 8 s in which the slow lane pauses: the reading after it is a mean over its last second."""

    def energy(t):
        return POWER_W * (t + np.clip(t - 20.0, 0, 8))

    t_s = fast_lane(70)["t_us"] * 1e-6
    fast = fast_lane(70, energy, POWER_W * np.where((t_s > 20) & (t_s < 28), 2, 1))
    row = measured(fast, only(slow_lane(70), (0, 20), (28.5, 70)), 2.0, 64.0)
    assert row["reasons"] == "" and row["energy_j"] == pytest.approx(POWER_W * 70, rel=1e-3)


@pytest.mark.parametrize(("seconds", "code"), [(12.0, "unchecked_average"), (9.0, "")])
def test_a_check_that_its_length_allows_and_that_had_no_data_is_said(seconds, code):
    slow = slow_lane(30)
    slow["power_average_mw"][:] = np.nan
    assert measured(fast_lane(30), slow, 5.0, 5.0 + seconds)["reasons"] == code


def test_the_average_need_not_be_read_at_the_edges():
    row = measured(fast_lane(12.0, lambda t: 1.2 * POWER_W * t), only(slow_lane(12), (0, 11)), 1.0, 11.4)
    assert row["average_energy_j"] is None and "counter_contradicted" in said(row)


def doubled(device: int, lane: str, t_s: float) -> dict:
    return {
        "kind": "period_doubled",
        "devices": [device],
        "lane": lane,
        "period_ms": 320.0,
        "t_us": t_s * 1e6,
    }


@pytest.mark.parametrize(
    ("event", "gap"),
    [
        (doubled(0, "nvml", 2.0), False),
        (doubled(1, "nvml", 2.0), True),
        (doubled(0, "state", 2.0), True),
        (doubled(0, "nvml", 25.0), True),
    ],
)
def test_only_a_slower_reading_of_this_device_until_then_excuses_a_gap(event, gap):
    fast = fast_lane(30)
    seen = (fast["t_us"] < 10e6) | (fast["t_us"] > 11.5e6)
    row = measured({name: values[seen] for name, values in fast.items()}, slow_lane(30), 5.0, 20.0, [event])
    assert ("gap" in said(row)) == gap
