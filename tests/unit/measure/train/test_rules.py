"""When warm-up ends and how long the window is."""

import math

import pytest
from jouleline.campaign.config import PROTOCOL_DEFAULTS
from jouleline.campaign.protocol import complete_protocol
from jouleline.errors import UserError
from jouleline.measure.train import rules

PROTOCOL = {
    **PROTOCOL_DEFAULTS,
    "warmup_steps": 3,
    "warmup_max_steps": 12,
    "window_steps": 10,
    "window_s": 2.0,
}


@pytest.mark.parametrize(
    ("times_s", "steady"),
    [
        ([1.0] * 5, False),  # one chunk and a half
        ([1.0] * 6, True),
        ([9.0, 1.0, 1.0, 1.0, 1.04, 1.0], True),  # one slow step is no median
        ([1.0, 1.0, 1.0, 0.94, 0.94, 0.94], False),
        ([9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 1.03, 1.03, 1.03], True),  # only the last two chunks count
    ],
)
def test_step_time_is_steady_when_two_chunks_agree(times_s, steady):
    assert rules.is_steady(times_s, PROTOCOL) is steady


def test_warm_up_is_bounded_in_steps_and_in_time():
    falling = [0.1 * 0.8**number for number in range(12)]
    assert not rules.is_steady(falling, PROTOCOL)
    assert not rules.warmup_is_over(falling[:9], PROTOCOL)
    assert rules.warmup_is_over(falling, PROTOCOL)
    # The first chunk may hold the loading of libraries: its time does not count.
    assert not rules.warmup_is_over([5.0, 1.0, 0.5], PROTOCOL)
    assert not rules.warmup_is_over([60.0, 1.0, 0.5, 0.4, 0.3, 0.3], PROTOCOL)
    assert rules.warmup_is_over([60.0, 1.0, 0.5, 2.0, 1.5, 0.5], PROTOCOL)
    assert rules.warmup_is_over([0.1] * 3, {**PROTOCOL, "warmup_max_steps": 3})


def test_a_cold_device_is_warmed_up_within_the_limits():
    cold = {**PROTOCOL, "start_temperature_min_c": 40.0}
    steady = [0.1] * 6
    assert rules.warmup_is_over(steady, PROTOCOL, 30.0)
    assert not rules.warmup_is_over(steady, cold, 39.9)
    assert rules.warmup_is_over(steady, cold, 40.0)
    assert rules.warmup_is_over(steady, cold, None)  # no sensor
    assert rules.warmup_is_over([0.1] * 12, cold, 30.0)  # warmup_max_steps


def test_a_band_of_temperatures_goes_from_low_to_high():
    band = {"start_temperature_min_c": 40.0, "start_temperature_c": 50.0}
    assert complete_protocol(band)["start_temperature_min_c"] == 40.0
    with pytest.raises(UserError, match="start_temperature_min_c 60.0 is above start_temperature_c"):
        complete_protocol({**band, "start_temperature_min_c": 60.0})


def test_window_has_its_steps_and_its_seconds():
    assert rules.window_steps(1.0, 2.0, PROTOCOL) == 10  # steps ask for more
    assert rules.window_steps(0.01, 2.0, PROTOCOL) >= 200  # seconds ask for more
    assert rules.window_steps(0.01, 500.0, PROTOCOL) == 12_000  # window_max_s bounds the seconds
    assert rules.window_steps(900.0, 2.0, PROTOCOL) == 10  # but never the steps


def test_window_that_was_too_short_is_continued():
    assert rules.more_steps(2.1, 100, 2.0, PROTOCOL) == 0
    added = rules.more_steps(1.5, 100, 2.0, PROTOCOL)
    assert added * 0.015 >= 0.5
    assert rules.more_steps(121.0, 10, 500.0, PROTOCOL) == 0


def test_window_is_long_enough_for_the_meter():
    wanted = {**PROTOCOL, "edge_target_rel": 0.01}
    assert rules.window_seconds(wanted, None) == 2.0
    assert rules.window_seconds(wanted, 0.01) == 2.0
    seconds = rules.window_seconds(wanted, 0.1)
    # Both edges lie anywhere within a tick: the variance of their difference is 2 tick^2 / 12.
    assert math.sqrt(2 * 0.1**2 / 12) / seconds == pytest.approx(0.01)
    assert rules.window_seconds(wanted, 100.0) == 120.0
