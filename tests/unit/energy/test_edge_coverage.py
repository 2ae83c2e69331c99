"""The stated uncertainty of the edges covers their error, for any ratio of the load's period to the counter's tick."""

import itertools

import numpy as np
import pytest
from jouleline.energy.curve import Curve, counter_curve
from jouleline.energy.load import Series
from jouleline.schemas.samples import SAMPLES

TICK_S = REFRESH_S = 0.1
# Of other drivers and devices; each with periods near it, and far from it.
TICKS_S = (0.02, 0.05, 0.2)
RATIOS = (0.31, 0.997, 1.003, 2.005, 4.7)
POLL_S, SENSOR_S, NOISE_W = 0.02 * 63 / 64, 0.025, 0.5
LOW_W, HIGH_W = 220.0, 650.0
FIRST_S, WHOLE_S = 10.0, 70.0
PERIODS_S = (0.02, 0.033, 0.05, 0.07, 0.0997, 0.1, 0.1003, 0.101, 0.11, 0.15, 0.2, 0.2005, 0.317, 0.5, 1.0)
WINDOWS_S = (1.0, 3.0, 12.0, 60.0)
DUTIES = (0.2, 0.5, 0.8)


class Load:
    """A square wave with random phases of the load, the counter and the sensor."""

    def __init__(self, random: np.random.Generator, period_s: float, duty: float, every_s: float = TICK_S):
        self.period_s, self.duty, self.every_s = period_s, duty, every_s
        self.phase_s, self.tick_s, self.refresh_s = random.uniform(0, (period_s, every_s, REFRESH_S))
        self.noise_w = NOISE_W * random.standard_normal(round(WHOLE_S / REFRESH_S) + 2)
        self.late_s = random.exponential(1.5e-4, round(WHOLE_S / POLL_S))

    def energy_j(self, t_s):
        """In closed form, from time 0 on."""
        y = t_s + self.phase_s
        whole = np.floor(y / self.period_s)
        high_s = whole * self.duty * self.period_s
        high_s += np.minimum(y - whole * self.period_s, self.duty * self.period_s)
        return LOW_W * y + (HIGH_W - LOW_W) * high_s

    def curve(self) -> Curve:
        t_s = FIRST_S + POLL_S * np.arange(len(self.late_s)) + self.late_s
        ticks_s = np.floor((t_s - self.tick_s) / self.every_s) * self.every_s + self.tick_s
        shown = np.floor((t_s - self.refresh_s) / REFRESH_S)
        shown_s = shown * REFRESH_S + self.refresh_s
        power_w = (self.energy_j(shown_s) - self.energy_j(shown_s - SENSOR_S)) / SENSOR_S
        power_w += self.noise_w[(shown - shown[0]).astype(int)]
        fast = {name: np.full(len(t_s), np.nan) for name in SAMPLES.names}
        fast |= {"t_us": t_s * 1e6, "call_us": np.full(len(t_s), 20.0), "status": np.zeros(len(t_s))}
        fast |= {"energy_mj": np.floor(self.energy_j(ticks_s) * 1e3), "power_mw": power_w * 1e3}
        slow = {name: np.full(1, np.nan) for name in SAMPLES.names}
        info = {"index": 0, "uuid": "GPU-0", "kind": "gpu", "counter": "ticking"}
        return counter_curve(Series(info, fast, slow))


def errors(period_s: float, window_s: float, tick_s: float = TICK_S) -> tuple[np.ndarray, np.ndarray]:
    """Errors (J) of windows at random places under loads of random phases, and the uncertainty stated for each."""
    random = np.random.default_rng([round(1e4 * period_s), round(window_s)])
    found = []
    for duty in DUTIES:
        for _ in range(6):
            load = Load(random, period_s, duty, tick_s)
            curve = load.curve()
            start_s = FIRST_S + 0.5 + random.uniform(0, WHOLE_S - window_s - 1.5, 25)
            end_s = start_s + window_s
            seen_j = curve.at(end_s * 1e6) - curve.at(start_s * 1e6)
            u_j = np.hypot(curve.edge_u(start_s * 1e6), curve.edge_u(end_s * 1e6))
            found.append((seen_j - (load.energy_j(end_s) - load.energy_j(start_s)), u_j))
    return tuple(np.concatenate(parts) for parts in zip(*found))


@pytest.mark.fault("load whose period is near the counter's tick", "the edges' uncertainty covers the error")
@pytest.mark.parametrize("window_s", WINDOWS_S)
@pytest.mark.parametrize("period_s", PERIODS_S)
def test_nine_of_ten_errors_lie_within_two_uncertainties(period_s, window_s):
    error_j, u_j = errors(period_s, window_s)
    assert np.mean(np.abs(error_j) <= 2 * u_j) >= 0.9


@pytest.mark.fault("counters of other ticks, 20 to 200 ms", "the edges' uncertainty covers the error")
@pytest.mark.parametrize("tick_s", TICKS_S)
def test_so_they_do_whatever_the_counters_tick(tick_s):
    for ratio, window_s in itertools.product(RATIOS, (1.0, 12.0)):
        error_j, u_j = errors(ratio * tick_s, window_s, tick_s)
        assert np.mean(np.abs(error_j) <= 2 * u_j) >= 0.9, (ratio, window_s)


def test_a_steady_load_is_not_made_uncertain():
    """What covers steps must not add width where there are none: 0.12 % of a second's energy."""
    load = Load(np.random.default_rng(0), 100.0, 1.0)
    u_j = load.curve().edge_u(np.linspace(15e6, 75e6, 100))
    assert u_j.max() < 0.0012 * HIGH_W * 1.0


def test_a_reading_long_after_the_last_tick_is_held_against_that_one():
    """A slow poll ends with readings of the power after the last tick."""
    curve = Load(np.random.default_rng(1), 0.5, 0.5).curve()
    seen_us, seen_w = curve.seen
    curve.seen = np.append(seen_us, curve.t_us[-1] + 1e6), np.append(seen_w, 300.0)
    power_w = np.full(len(curve.t_us) - 1, 300.0)
    assert len(curve._off_w(power_w)) == len(seen_us) + 1
