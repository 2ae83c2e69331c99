"""From readings to a cumulative energy curve E(t) of one device.

NVML's energy counter moves only every tick (20 to 100 ms). So a reading at a region's edge is up to one tick old. Here
the moments at which the counter moved become the knots of a curve, and the edge is interpolated between them. The
error of an edge is then the energy of a part of the polling period, not that of a tick.
"""

from dataclasses import dataclass, field

import numpy as np

from jouleline.energy.load import Series
from jouleline.energy.ticks import RESOLVED, locate

US = 1e-6
# A counter that does not move for so many ticks (and at least this long) while it is read is stuck.
STUCK_TICKS = 4.0
STUCK_S = 0.25
SEEN_TICKS = 2.5
# If it does not move for somewhat longer than a tick, it paused. It is stuck only if energy is missing.
PAUSE_TICKS = 1.2
# A step of the counter that means more than this times the highest known power is a reset to a higher value.
JUMP_FACTOR = 2.0
# Energy is lost where the counter's step over a stall differs from the measured power by more than so many
# uncertainties.
LOST_U = 2.0
# Relative standard uncertainty of energy that is bridged by measured power, and by the neighbours alone.
BRIDGE_U = 0.1
BLIND_BRIDGE_U = 0.5
# How rarely the instant power is refreshed (A100, H100), and the span in which its swing is looked for.
REFRESH_S = 0.1
NEARBY_US = 1e6
# The span in which a load that beats with the refresh is looked for, and how old the sensor's value may be.
BEAT_US = 10e6
# The sensor's own mean over 25 ms hides a part of the variance: a third at steps of 33 ms, nothing at long ones.
SENSOR_HIDES = 1.25
STALE_US = 150e3


@dataclass
class Defect:
    """A stretch of the curve that does not come from the counter alone: its uncertainty (J) and its code. The code is
    None where readings are missing, because that has its own code."""

    start_us: float
    end_us: float
    code: str | None
    u_j: float


@dataclass
class Curve:
    """Knots of E(t): `t_us` rising, `energy_j` never falling, `half_us` half-width of where each knot may be.

    `method` is tick, difference, average_power or instant_power. `tick_s` is the counter's update period (NaN:
    unknown).
    """

    t_us: np.ndarray
    energy_j: np.ndarray
    half_us: np.ndarray
    method: str
    tick_s: float = np.nan
    defects: list[Defect] = field(default_factory=list)
    # Times (us) and values (W) of the instant power, to see what changes inside a tick.
    seen: tuple[np.ndarray, np.ndarray] | None = None

    def at(self, t_us: np.ndarray) -> np.ndarray:
        """E at the given times (J); NaN outside the knots."""
        return np.interp(t_us, self.t_us, self.energy_j, left=np.nan, right=np.nan)

    def edge_u(self, t_us: np.ndarray) -> np.ndarray:
        """Standard uncertainty (J) of E at the given times. It comes from the place of the knots, and from power that
        changes inside a tick.

        Let w be the place between two knots a, b, and P the power there. Then u^2 = P^2 h^2 / 3 ((1-w)^2 + w^2) for
        knots uniform within +-h. Where a tick is no longer than a few polls it is P^2 h^2 / 3: tick and poll beat
        slowly, so the next knot has the same error. Add (dP (b-a) w (1-w))^2 / 2, with dP the difference to the
        neighbours' power. Add (H (b-a))^2 w (1-w) / 3, with H the spread of power that the ticks average away.
        """
        if len(self.t_us) < 2:
            return np.full(np.shape(t_us), np.nan)
        right = np.clip(np.searchsorted(self.t_us, t_us, "right"), 1, len(self.t_us) - 1)
        span = np.diff(self.t_us) * US
        power = np.diff(self.energy_j) / np.maximum(span, 1e-9)
        change = np.abs(np.diff(power))
        nearby = np.maximum(np.append(change, 0.0), np.append(0.0, change))
        here = right - 1
        weight = np.clip((t_us - self.t_us[here]) / (self.t_us[right] - self.t_us[here]), 0, 1)
        half = np.maximum(self.half_us[here], self.half_us[right]) * US
        apart = span[here] > RESOLVED * 2 * half
        place = power[here] ** 2 * half**2 / 3 * np.where(apart, (1 - weight) ** 2 + weight**2, 1.0)
        shape = (nearby[here] * span[here] * weight * (1 - weight)) ** 2 / 2
        hidden = (self._hidden_w(t_us, power) * span[here]) ** 2 * weight * (1 - weight) / 3
        return np.sqrt(place + shape + hidden)

    def _hidden_w(self, t_us: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Standard deviation (W) around the given times that the instant power shows and the ticks do not: steps
        shorter than a tick.

        It is the variance of the readings minus that of the ticks. Where the load beats slowly with the sensor's
        refresh, the readings do not vary for seconds, but differ from the power of the ticks. The larger of both
        counts.
        """
        if self.seen is None or len(self.seen[0]) == 0:
            return np.zeros(np.shape(t_us))
        middle = 0.5 * (self.t_us[1:] + self.t_us[:-1])
        seen, ticks = (_around(t_us, *of, NEARBY_US)[1] for of in (self.seen, (middle, power)))
        off = self._off_w(power)
        mean, variance = _around(t_us, self.seen[0], off, BEAT_US)
        return np.sqrt(SENSOR_HIDES * np.maximum(seen - ticks, mean**2 + variance))

    def _off_w(self, power: np.ndarray) -> np.ndarray:
        """How far (W) each reading of the instant power is from the powers of the ticks to which it may belong."""
        seen_us, seen_w = self.seen
        last = np.clip(np.searchsorted(self.t_us, seen_us, "right") - 1, 0, len(power) - 1)
        # A reading long after the last tick can belong to that tick only.
        first = np.minimum(np.searchsorted(self.t_us, seen_us - STALE_US, "right") - 1, last)
        low = high = power[last]
        for back in range(1, int(np.max(last - first, initial=0)) + 1):
            beside = power[np.clip(np.maximum(last - back, first), 0, None)]
            low, high = np.minimum(low, beside), np.maximum(high, beside)
        return np.maximum(np.maximum(low - seen_w, seen_w - high), 0.0)


def _around(
    t_us: np.ndarray, at_us: np.ndarray, values: np.ndarray, span_us: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the values within half of `span_us` of each of the times; 0 where there are none."""
    centre = values.mean()
    first = np.searchsorted(at_us, t_us - 0.5 * span_us)
    last = np.searchsorted(at_us, t_us + 0.5 * span_us)
    count = np.maximum(last - first, 1)
    sums = [np.append(0.0, np.cumsum((values - centre) ** power)) for power in (1, 2)]
    mean, square = ((total[last] - total[first]) / count for total in sums)
    return np.where(last > first, mean + centre, 0.0), np.maximum(square - mean**2, 0)


def _readings(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Begin and end of the call (us), and energy (J), of the good readings."""
    fast = series.fast
    good = (fast["status"] == 0) & np.isfinite(fast["energy_mj"])
    return fast["t_us"][good], fast["t_us"][good] + fast["call_us"][good], fast["energy_mj"][good] * 1e-3


def power_readings(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Times (us) and instant power (W) of the readings that have it."""
    fast = series.fast
    good = np.isfinite(fast["power_mw"])
    return fast["t_us"][good] + 0.5 * fast["call_us"][good], fast["power_mw"][good] * 1e-3


def average_readings(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Times (us) and 1 s average power (W) of the slow lane."""
    slow = series.slow
    good = np.isfinite(slow["power_average_mw"])
    return slow["t_us"][good] + 0.5 * slow["call_us"][good], slow["power_average_mw"][good] * 1e-3


def cumulate(t_us: np.ndarray, power_w: np.ndarray) -> np.ndarray:
    """Trapezoid integral of power from the first reading on (J)."""
    steps = 0.5 * (power_w[1:] + power_w[:-1]) * np.diff(t_us) * US
    return np.append(0.0, np.cumsum(steps))


def counter_curve(series: Series) -> Curve | None:
    """E(t) from the energy counter. None where it has fewer than two readings.

    A continuous counter (RAPL, estimate) is up to date whenever it is read, so each reading is a knot.
    """
    begin_us, end_us, energy_j = _readings(series)
    if len(begin_us) < 2:
        return None
    if series.info.get("counter") == "continuous":
        middle, half = 0.5 * (begin_us + end_us), 0.5 * (end_us - begin_us)
        return Curve(middle, energy_j - energy_j[0], half, "difference")
    return _tick_curve(series, begin_us, end_us, energy_j)


def _tick_curve(
    series: Series, begin_us: np.ndarray, end_us: np.ndarray, energy_j: np.ndarray
) -> Curve | None:
    """A tick is between the begin of the last call that saw the old value and the end of the first that saw the new."""
    step_j = np.diff(energy_j)
    moved = np.flatnonzero(step_j != 0) + 1
    if len(moved) < 2:
        return None
    before, after = begin_us[moved - 1], end_us[moved]
    usual_poll = np.median(np.diff(begin_us))
    close = (after - before) < 3 * usual_poll
    centre = 0.5 * (before + after)
    # The mean of the usual steps, because their median is a whole number of polls.
    apart = np.diff(centre)
    tick_us = float(apart[apart <= 1.5 * np.median(apart)].mean())
    # After a gap the counter may have moved several times. Its value is from the last tick before the reading.
    low = np.where(close, before, np.maximum(before, begin_us[moved] - tick_us))
    knot_us, half_us = locate(low, after, close)

    gain_j = np.append(0.0, step_j[moved[1:] - 1])
    # The longest possible time between two ticks. Late readings make knots seem closer than they are. After a stall
    # that the counter made up for, the energy of a whole tick may come at once.
    span_s = np.append(np.inf, np.maximum(after[1:] - before[:-1], tick_us)) * US
    reset = step_j[moved - 1] < 0
    reset |= gain_j > JUMP_FACTOR * _highest_power(series) * span_s + 1.0
    curve = Curve(knot_us, energy_j[moved], half_us, "tick", tick_us * US)
    curve.seen = power_readings(series)
    # How long the counter was seen not to move: from the first reading of a value to the last.
    return _mend(curve, reset, (before[1:] - after[:-1]) * US, begin_us[-1])


def _highest_power(series: Series) -> float:
    """The highest possible power of the device, as far as known (W): its limit or the highest power seen; inf if
    neither.
    """
    known = [series.info.get("power_limit_w") or 0.0]
    for values in (series.slow["power_limit_mw"], series.fast["power_mw"]):
        if np.isfinite(values).any():
            known.append(float(np.nanmax(values)) * 1e-3)
    return max(known) or np.inf


def _mend(curve: Curve, reset: np.ndarray, still_s: np.ndarray, last_us: float) -> Curve:
    """Walk the intervals between knots. Leave out the knot of a reset, and use power for what the counter missed.

    `still_s` belongs to the intervals between all knots. `last_us` is the last reading.
    """
    stuck_us = max(STUCK_TICKS * curve.tick_s, STUCK_S) / US
    keep = ~reset
    keep[0] = True
    kept = np.flatnonzero(keep)
    crossed = np.diff(np.cumsum(reset)[kept]) > 0
    knot_us, value_j, half_us = curve.t_us[kept], curve.energy_j[kept], curve.half_us[kept]
    gain_j, span_us = np.diff(value_j), np.diff(knot_us)
    long = span_us > stuck_us
    plain = ~(crossed | long)
    # Without readings in between, a counter that seems not to move may only not have been read.
    stood = still_s[kept[1:] - 1] > np.where(long, SEEN_TICKS, PAUSE_TICKS) * curve.tick_s
    shapes: list[tuple[int, np.ndarray, np.ndarray]] = []
    for index in np.flatnonzero(~plain | stood):
        start, end = knot_us[index], knot_us[index + 1]
        if not crossed[index] and not stood[index]:
            curve.defects.append(Defect(start, end, None, _unseen_u(knot_us, gain_j, index, plain)))
            continue
        power_j, u_j, inner = _by_power(curve.seen, start, end, gain_j, index, curve.tick_s)
        # In a short interval the exact place of its ends matters.
        place_us = np.hypot(half_us[index], half_us[index + 1])
        u_j = float(np.hypot(u_j, power_j * place_us / (end - start)))
        off_j = abs(gain_j[index] - power_j)
        lost = crossed[index] or off_j > LOST_U * u_j
        if plain[index] and not lost:
            curve.defects.append(Defect(start, end, None, max(off_j, u_j)))
            continue
        code = "counter_reset" if crossed[index] else "counter_stuck"
        curve.defects.append(Defect(start, end, code, u_j if lost else off_j))
        if lost:
            gain_j[index] = power_j
        if inner is not None:
            shapes.append((index, *inner))
    tail = _stuck_tail(curve, knot_us[-1], last_us, stuck_us)
    curve.t_us, curve.half_us = knot_us, half_us
    curve.energy_j = np.append(0.0, np.cumsum(np.maximum(gain_j, 0.0)))
    _insert(curve, shapes, tail)
    return curve


def _unseen_u(knot_us: np.ndarray, gain_j: np.ndarray, index: int, plain: np.ndarray) -> float:
    """Uncertainty (J) of the counter over a hole in its readings, in which it may have stopped or been reset. It is the
    difference from what the plain intervals around the hole give."""
    start, end = knot_us[index], knot_us[index + 1]
    around = plain & (knot_us[1:] > start - NEARBY_US) & (knot_us[:-1] < end + NEARBY_US)
    if not around.any():
        return BLIND_BRIDGE_U * abs(gain_j[index])
    power = gain_j[around].sum() / np.diff(knot_us)[around].sum()
    return abs(power * (end - start) - gain_j[index])


def _by_power(seen, start, end, gain_j, index, tick_s):
    """Energy of one interval by measured power (J), its uncertainty, and the knots inside (times, share of the energy).

    Without power readings it uses the power of the intervals on both sides, with the uncertainty of a guess.
    """
    t_us, power_w = seen
    first, last = np.searchsorted(t_us, [start, end])
    if last - first >= 2:
        times = np.concatenate(([start], t_us[first:last], [end]))
        watts = np.interp(times, t_us, power_w)
        total = cumulate(times, watts)
        if total[-1] > 0:
            # The sensor shows the power of one moment per refresh, and nothing in a hole. Over such a stretch the swing
            # is not averaged.
            near = slice(*np.searchsorted(t_us, [start - NEARBY_US, end + NEARBY_US]))
            swing_w = float(np.ptp(power_w[near]))
            blind_s = max(REFRESH_S, float(np.diff(times).max()) * US)
            u_j = np.hypot(BRIDGE_U * total[-1], swing_w * blind_s / np.sqrt(2))
            return total[-1], float(u_j), (times[1:-1], total[1:-1] / total[-1])
    beside = [gain_j[k] for k in (index - 1, index + 1) if 0 <= k < len(gain_j) and gain_j[k] > 0]
    watts = float(np.mean(beside)) / tick_s if beside and tick_s > 0 else 0.0
    energy = watts * (end - start) * US
    return energy, BLIND_BRIDGE_U * energy, None


def _stuck_tail(curve, moved_us, last_us, stuck_us):
    """The counter stopped and never moved again. Continue by power to the last reading. (times, energies) or None."""
    if last_us - moved_us <= stuck_us:
        return None
    t_us, power_w = curve.seen
    after = (t_us > moved_us) & (t_us <= last_us)
    if after.sum() < 2:
        return None
    times = np.append(moved_us, t_us[after])
    energies = cumulate(times, np.interp(times, t_us, power_w))
    curve.defects.append(Defect(moved_us, times[-1], "counter_stuck", BRIDGE_U * energies[-1]))
    return times[1:], energies[1:]


def _insert(curve: Curve, shapes, tail) -> None:
    """Add the knots inside mended intervals, and the tail, to the curve."""
    extra_t, extra_e = [], []
    for index, times, shares in shapes:
        low, high = curve.energy_j[index], curve.energy_j[index + 1]
        extra_t.append(times)
        extra_e.append(low + shares * (high - low))
    if tail is not None:
        extra_t.append(tail[0])
        extra_e.append(curve.energy_j[-1] + tail[1])
    if not extra_t:
        return
    new_t, new_e = np.concatenate(extra_t), np.concatenate(extra_e)
    t_us = np.concatenate((curve.t_us, new_t))
    order = np.argsort(t_us, kind="stable")
    curve.half_us = np.concatenate((curve.half_us, np.zeros(len(new_t))))[order]
    curve.energy_j = np.concatenate((curve.energy_j, new_e))[order]
    curve.t_us = t_us[order]


def average_curve(series: Series) -> Curve | None:
    """E(t) from the 1 s average power, read once a second. None for fewer than two readings.

    A reading at t is the mean over (t - 1 s, t]. So the energy between two readings is that mean times the time
    between.
    """
    t_us, power_w = average_readings(series)
    if len(t_us) < 2:
        return None
    energy_j = np.append(0.0, np.cumsum(power_w[1:] * np.diff(t_us) * US))
    return Curve(t_us, energy_j, np.full(len(t_us), 0.1e6), "average_power")


def instant_curve(series: Series) -> Curve | None:
    """E(t) from the instant power by trapezoids.

    It is wrong where steps line up with the sensor's refresh (`alias`).
    """
    t_us, power_w = power_readings(series)
    if len(t_us) < 2:
        return None
    return Curve(t_us, cumulate(t_us, power_w), np.full(len(t_us), 5e4), "instant_power")
