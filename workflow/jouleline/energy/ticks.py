"""When a counter moved, more exactly than one polling period.

A reading only says that a tick was between two polls. Where ticks are regular, a straight line through some two hundred
of them gives the time of each far better than its own interval. Where they are not regular, the line misses the
intervals. Then the middle of each interval is kept.
"""

import numpy as np

BLOCK = 256
FEWEST = 16
# The line is used when it passes this close to nearly all of the intervals.
SLACK_US = 1000.0
AGREE = 0.97
STRAY = (1 - AGREE) / 2
# Ticks must be this many intervals apart. If they are closer, a late poll makes their number uncertain. With several
# ticks between two polls the line would go through the polls, and so agree with itself.
RESOLVED = 4.0
# The uncertainty of a line is never taken to be below this share of the usual interval.
BEST_SHARE = 0.1


def locate(low_us: np.ndarray, high_us: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time (us) of each tick and half-width (us) of where it may be, from the intervals that contain them.

    `usable` marks the intervals that contain exactly one tick (no gap before them).
    """
    centre, half = 0.5 * (low_us + high_us), 0.5 * (high_us - low_us)
    count = len(centre)
    blocks = max(count // BLOCK, 1)
    for first, last in zip(*(np.linspace(0, count, blocks + 1, dtype=int)[k : k + blocks] for k in (0, 1))):
        part = slice(first, last)
        fitted = _line(centre[part], low_us[part], high_us[part], usable[part])
        if fitted is not None:
            line, spread = fitted
            # A tick never moves out of the interval in which it was seen. One of several ticks in a gap stays.
            single = usable[part]
            centre[part] = np.where(single, np.clip(line, low_us[part], high_us[part]), centre[part])
            half[part] = np.where(single, np.minimum(half[part], spread), half[part])
    return centre, half


def _line(centre, low, high, usable) -> tuple[np.ndarray, float] | None:
    """Least-squares line of tick times over tick numbers, and the half-width of its own uncertainty (us)."""
    if usable.sum() < FEWEST:
        return None
    steps = np.diff(centre)
    period = np.median(steps)
    if period < RESOLVED * np.median((high - low)[usable]):
        return None
    # Only each step is rounded to a number, so a period that is slightly wrong does not add up.
    number = np.append(0, np.cumsum(np.round(steps / period)))
    for _ in range(2):
        slope, offset = np.polyfit(number[usable], centre[usable], 1)
        number = np.append(0, np.cumsum(np.round(steps / slope)))
    line = offset + slope * number
    agrees = (line >= low - SLACK_US) & (line <= high + SLACK_US)
    if agrees[usable].mean() < AGREE:
        return None
    deviation = np.std((centre - line)[usable])
    spread = np.sqrt(3) * 2 * deviation / np.sqrt(usable.sum())
    # Ticks that always come at nearly the same place between two polls leave room to shift the line, however many ticks
    # there are. The middle of this room is used.
    lowest, highest = (np.quantile((e - line)[usable], q) for e, q in ((low, 1 - STRAY), (high, STRAY)))
    line = line + 0.5 * (lowest + highest) * (highest > lowest)
    spread = max(spread, 0.5 * (highest - lowest), BEST_SHARE * np.median((high - low)[usable]))
    return line, float(spread)
