"""Late readings, as on a busy machine, of counters that stop or are reset: no false reset, and no error beyond the
stated uncertainty. The readings are made up, because the test must control how late they are."""

import numpy as np
import pytest
from jouleline.schemas.samples import SAMPLES
from made_up import POWER_W, fast_lane, measured, slow_lane

SECONDS, LIMIT_MW = 16.0, 7e5
RUNS = 40
# (share of readings that are late, mean lateness in s).
LATENESS = {"on time": (0.0, 0.01), "late": (0.15, 0.05), "very late": (0.1, 0.15), "holes": (0.05, 0.5)}


def square_energy(rng):
    """E(t) in J of a random square wave."""
    low, high = rng.uniform(100, 300), rng.uniform(350, 690)
    period, duty, phase = rng.uniform(0.13, 1.3), rng.uniform(0.3, 0.9), rng.random()

    def until(y):
        whole = np.floor(y / period)
        return low * y + (high - low) * (
            whole * duty * period + np.minimum(y - whole * period, duty * period)
        )

    return lambda t: until(np.asarray(t) + phase) - until(phase)


def polls(rng, late_share: float, late_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Begin and length of the calls (s): one in fifty takes long, some begin late."""
    begins, lengths, now = [], [], 0.0007
    while now < SECONDS:
        begins.append(now)
        lengths.append(rng.exponential(0.02) if rng.random() < 0.02 else 2e-5)
        now += max(0.02 * 63 / 64, lengths[-1] + 1e-5)
        now += rng.exponential(late_s) if rng.random() < late_share else 0.0
    return np.array(begins), np.array(lengths)


def counter(rng, energy, t, fault: str, seconds: float) -> np.ndarray:
    """What the counter says at t (J), with a fault of so many seconds."""
    tick_s = rng.choice([0.1, 0.05, 0.0985, 0.02])
    phase_s, begin = rng.uniform(0, tick_s), rng.uniform(5, 8)
    end = begin + seconds

    def counted(x):
        return energy(np.maximum(np.floor((x - phase_s) / tick_s) * tick_s + phase_s, 0))

    values, stalled = 1000.0 + counted(t), (t >= begin) & (t < end)
    if fault in ("loses", "catches up"):
        values = np.where(stalled, 1000.0 + counted(begin), values)
    if fault == "loses":
        values = np.where(t >= end, values - (counted(end) - counted(begin)), values)
    if fault == "reset":
        values = np.where(t >= begin, values - 1000.0 - counted(begin), values)
    return values


def late_run(seed: int, lateness: str, fault: str, seconds: float = 1.0) -> tuple[dict, float]:
    """The region's row and its true energy (J)."""
    rng = np.random.default_rng(seed)
    energy = square_energy(rng)
    begin, length = polls(rng, *LATENESS[lateness])
    read = begin + length * rng.random(len(begin))
    shown = np.floor((read - 0.03) / 0.1) * 0.1 + 0.03
    fast = {name: np.full(len(begin), np.nan) for name in SAMPLES.names}
    fast |= {"t_us": np.floor(begin * 1e6), "call_us": np.ceil(length * 1e6), "status": np.zeros(len(begin))}
    fast["energy_mj"] = np.floor(counter(rng, energy, read, fault, seconds) * 1e3)
    fast["power_mw"] = (energy(shown) - energy(shown - 0.025)) / 0.025 * 1e3
    slow, at = slow_lane(SECONDS), np.arange(0.5, SECONDS, 1.0)
    slow["power_average_mw"], slow["power_limit_mw"] = (energy(at) - energy(at - 1)) * 1e3, at * 0 + LIMIT_MW
    start, end = rng.uniform(2, 4), rng.uniform(11, 14)
    return measured(fast, slow, start, end), float(energy(end) - energy(start))


@pytest.mark.fault(
    "readings that come late, on a busy machine", "`gap` where they are missing; no false reset"
)
@pytest.mark.parametrize("lateness", LATENESS)
@pytest.mark.parametrize("fault", ["none", "loses", "catches up", "reset"])
def test_late_readings_cost_certainty_and_not_the_truth(lateness, fault):
    scores, found = [], []
    for seed in range(RUNS):
        row, truth = late_run(seed, lateness, fault)
        found.append(set(row["reasons"].split(",")))
        if row["energy_j"] is not None:
            uncertainty_j = np.hypot(row["energy_edge_u_j"], row["energy_gap_u_j"])
            scores.append((row["energy_j"] - truth) / uncertainty_j)
    assert len(scores) > RUNS / 2
    assert np.abs(scores).max() < 5.5 and np.sqrt(np.mean(np.square(scores))) < 1.3
    assert sum("counter_reset" in codes for codes in found) == (RUNS if fault == "reset" else 0)
    assert fault != "none" or not any("counter_stuck" in codes for codes in found)
    # A stall is seen where somebody read the counter. In holes of half a second perhaps nobody did.
    if fault in ("loses", "catches up"):
        assert all(codes & {"counter_stuck", "gap"} for codes in found)


@pytest.mark.fault(
    "counter frozen for two to four ticks",
    "`counter_stuck` where energy is missing, else its uncertainty covers it",
)
@pytest.mark.parametrize("seconds", [0.2, 0.3, 0.38])
@pytest.mark.parametrize("fault", ["loses", "catches up"])
def test_a_short_stall_costs_certainty_and_not_the_truth(seconds, fault):
    scores, found = [], []
    for seed in range(RUNS):
        row, truth = late_run(seed, "on time", fault, seconds)
        found.append("counter_stuck" in row["reasons"].split(","))
        scores.append((row["energy_j"] - truth) / np.hypot(row["energy_edge_u_j"], row["energy_gap_u_j"]))
    assert np.abs(scores).max() < 5.5 and np.sqrt(np.mean(np.square(scores))) < 1.3
    assert fault != "loses" or np.mean(found) > 0.7


def test_a_short_stall_of_a_steady_load_is_bridged():
    """The counter loses 0.3 s: three ticks."""
    fast = fast_lane(10, lambda t: POWER_W * np.where(t < 5, t, np.maximum(5.0, t - 0.3)))
    row = measured(fast, slow_lane(10), 4.0, 6.0)
    assert (row["reasons"], row["verdict"]) == ("counter_stuck", "degraded")
    assert row["energy_j"] == pytest.approx(POWER_W * 2, rel=0.01)


def test_a_stall_that_nobody_saw_is_in_the_uncertainty():
    """The counter loses a second inside a hole of three. Only the power around the hole shows it."""
    t = np.arange(0.0007, 30, 0.02)
    t = t[(t < 10) | (t > 13)]
    fast = {name: np.full(len(t), np.nan) for name in SAMPLES.names}
    ticks = np.floor(t / 0.1) * 0.1
    fast |= {"t_us": t * 1e6, "call_us": np.full(len(t), 20.0), "status": np.zeros(len(t))}
    fast |= {"energy_mj": 3e5 * np.where(ticks < 11, ticks, ticks - 1.0), "power_mw": np.full(len(t), 3e5)}
    row = measured(fast, slow_lane(30), 2.0, 28.0)
    assert "gap" in row["reasons"] and row["verdict"] == "degraded"
    assert abs(row["energy_j"] - 300 * 26) < 1.5 * row["energy_gap_u_j"]
