"""Prediction intervals: split-conformal by family, from errors on families (and extremes) that the fit did not see."""

from collections.abc import Collection, Mapping

import numpy as np

from jouleline.model.features import AXES, Data

LEVELS = (0.80, 0.95)

MANY = 20
"""The number of families from which a 95 % quantile of their errors is possible."""

EXPECTED = 3
"""A model's own expectation of an unseen level counts as this many levels, beside those whose errors are known."""

LEVELLED = ("device", "precision", "strategy", "variant", "model_type")
"""Categories whose levels are left out one by one. This shows how far off an unseen level is."""

EXTREMES = (*LEVELLED, *AXES, "device_count")
"""The axes and categories along which an inner fit can be asked to reach outside."""


def inner_weights(
    data: Data,
    train: np.ndarray,
    parts: int = 5,
    seed: int = 0,
    extremes: bool = True,
    beyond: Collection[str] = (),
) -> list[np.ndarray]:
    """Training masks within a fold's training rows. They leave out `parts` groups of families, then each end of each
    axis.

    `beyond` names those of EXTREMES along which the asked rows will lie outside. Each level of such a category and each
    device count is left out too, and then two values of an axis are enough.
    """
    families = np.unique(data.families[train])
    if len(families) < 3:
        return []
    shuffled = np.random.default_rng(seed).permutation(families)
    held = [np.isin(data.families, shuffled[k::parts]) for k in range(min(parts, len(families)))]
    if extremes:
        held += _ends(data, train, beyond)
        for name in LEVELLED:
            levels, index = data.labels(name)
            held += [index == code for code in range(len(levels)) if name in beyond]
    masks = [train & ~out for out in held]
    return [mask for mask in masks if len(np.unique(data.families[mask])) >= 2 and (train & ~mask).any()]


def drawn(data: Data, train: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Indices of about `most` of a fold's training rows, by whole families. The errors of inner fits are taken from
    them.

    Enough families of every device, device count, precision, strategy and variant are kept for a width of its own.
    """
    families = np.random.default_rng([seed, 2]).permutation(np.unique(data.families[train]))
    sizes = np.bincount(data.families[train], minlength=data.families.max() + 1)[families]
    kept = np.cumsum(sizes) <= most
    for name in (*LEVELLED, "device_count"):
        levels, index = data.labels(name)
        for code in range(len(levels)):
            having = np.isin(families, data.families[train & (index == code)])
            kept[np.flatnonzero(having)[: 2 * MANY]] = True
    return np.flatnonzero(train & np.isin(data.families, families[kept]))


def _ends(data: Data, train: np.ndarray, beyond: Collection[str]) -> list[np.ndarray]:
    """The families at both ends of each axis and of compute, and the rows of each device count."""
    held = []
    for axis in AXES:
        levels = np.unique(data.columns[axis][train])
        for level in levels[[0, -1]] if len(levels) >= (2 if axis in beyond else 3) else ():
            held.append(np.isin(data.families, data.families[train & (data.columns[axis] == level)]))
    low, high = np.quantile(data.flop[train], [0.25, 0.75])
    for end in (data.flop < low, data.flop > high):
        held.append(np.isin(data.families, data.families[train & end]))
    if "device_count" in beyond:
        held += [data.devices == count for count in np.unique(data.devices[train])]
    return held


def half_widths(
    scores: np.ndarray,
    families: np.ndarray,
    axes: np.ndarray,
    devices: np.ndarray,
    levels: Mapping[str, np.ndarray] | None = None,
    expected: Mapping[str, float] | None = None,
) -> dict:
    """Half-widths of log intervals from absolute log errors [n], per level: within the sampled range, and outside.

    `axes` [n] says along which axes a row lay outside of what its fit had seen ("" inside, "layers,seq_len"). A law may
    reach far along one axis and not along another. So outside, every axis has widths of its own, never narrower than
    inside. Among several `devices` [n], a device with fewer than MANY families also has widths of its own (`few_runs`),
    because the errors of well-known devices say little about it.

    Every family has the same weight, however many rows it has. One more family at infinity stands for the new one.
    Along a category the levels are drawn, not the families. So `levels` (axis -> [n]) replace the families there: a
    hundred runs of one other device show only how far off one device was. Where there are too few families (or levels)
    for a quantile, a Student-t interval on the errors replaces it. One family alone gives no interval. `expected` (axis
    -> log sd) is the deviation that the model itself expects all rows of an unseen level to share. Together with the
    errors inside, it counts as EXPECTED errors. Device counts are few, and all families share what is special about
    one. So along `device_count` the width is the wider of two: that of the families, and a Student-t interval on the
    root mean squares of the counts.
    """
    out = axes != ""
    inside = _stratum(scores[~out], families[~out])
    within = _square(scores[~out], families[~out])
    expected = {axis: np.sqrt(sd**2 + within) for axis, sd in (expected or {}).items()}
    outside = {}
    for axis in sorted({one for row in set(axes[out].tolist()) for one in row.split(",")}):
        along = np.array([axis in row.split(",") for row in axes.tolist()])
        units = (levels or {}).get(axis, families)
        drawn = families if axis == "device_count" else units
        widths = _stratum(scores[along], drawn[along], expected.get(axis))["widths"]
        if axis == "device_count" and levels:
            for level, width in _of_counts(scores[along], units[along]).items():
                widths[level] = _widest(widths[level], width)
        outside[axis] = {level: _widest(width, inside["widths"][level]) for level, width in widths.items()}
    return {
        "families": inside["families"],
        "method": inside["method"],
        "inside": inside["widths"],
        "outside": outside,
        "few_runs": _few_runs(scores, families, devices),
    }


def _square(scores: np.ndarray, families: np.ndarray) -> float:
    """The mean square of errors. Every family has the same weight. 0 without errors."""
    known = np.isfinite(scores)
    _, index, counts = np.unique(families[known], return_inverse=True, return_counts=True)
    return float(np.mean(np.bincount(index, scores[known] ** 2) / counts)) if known.any() else 0.0


def _widest(width: float | None, inside: float | None) -> float | None:
    return width if width is None or inside is None else max(width, inside)


def _of_counts(scores: np.ndarray, counts: np.ndarray) -> dict[str, float | None]:
    """Student-t half-widths by level from the mean square error of each count. None from one count alone.

    No mean is estimated, so there are as many degrees of freedom as counts.
    """
    from scipy.special import stdtrit

    known = np.unique(counts[np.isfinite(scores)])
    if len(known) < 2:
        return {f"{level:.2f}": None for level in LEVELS}
    spread = np.sqrt(_square(scores, counts))
    return {f"{level:.2f}": float(stdtrit(len(known), 0.5 + level / 2) * spread) for level in LEVELS}


def _few_runs(scores: np.ndarray, families: np.ndarray, devices: np.ndarray) -> dict[str, dict]:
    names = sorted(set(devices.tolist())) if len(set(devices.tolist())) > 1 else []
    strata = {name: _stratum(scores[devices == name], families[devices == name]) for name in names}
    return {name: one["widths"] for name, one in strata.items() if one["families"] < MANY}


def row_widths(widths: Mapping, level: float, axes: np.ndarray, devices: np.ndarray) -> np.ndarray:
    """Half-width of each row's log interval [R], from the document of `half_widths`. NaN where there is none."""
    key = f"{level:.2f}"
    inside = widths.get("inside", {}).get(key)
    found = np.full(len(axes), np.nan if inside is None else inside)
    for one in set(axes.tolist()) - {""}:
        width = width_outside(widths.get("outside", {}), one, key)
        found[axes == one] = np.nan if width is None else width
    for device, own in widths.get("few_runs", {}).items():
        if own[key] is not None:
            rows = devices == device
            found[rows] = np.maximum(found[rows], own[key])  # unknown stays unknown
    return found


def width_outside(outside: Mapping[str, Mapping[str, float | None]], axes: str, level: str) -> float | None:
    """The half-width of a row that lies outside along `axes`: the widest of these axes. None where one of them has
    none."""
    widths = [outside.get(name, {}).get(level) for name in axes.split(",")]
    return None if None in widths else max(widths)


def _stratum(scores: np.ndarray, families: np.ndarray, expected: float | None = None) -> dict:
    finite = np.isfinite(scores)
    scores, families = np.abs(scores[finite]), families[finite]
    codes, index, counts = np.unique(families, return_inverse=True, return_counts=True)
    widths, methods = {}, {}
    for level in LEVELS:
        width, method = None, None
        if len(codes) >= 2:
            width, method = _conformal(scores, 1 / counts[index], len(codes), level), "conformal"
            if width is None:
                width = _student(scores, 1 / counts[index], len(codes), level, expected)
                method = "student-t"
        widths[f"{level:.2f}"], methods[f"{level:.2f}"] = width, method
    return {"families": len(codes), "widths": widths, "method": methods}


def _conformal(scores: np.ndarray, weights: np.ndarray, families: int, level: float) -> float | None:
    order = np.argsort(scores)
    reached = np.cumsum(weights[order]) / (families + 1)
    above = np.flatnonzero(reached >= level - 1e-12)
    return float(scores[order][above[0]]) if len(above) else None


def _student(
    scores: np.ndarray, weights: np.ndarray, families: int, level: float, expected: float | None
) -> float:
    """Student-t interval on errors around what the other families had in common. These hold a share of the one left
    out.

    So the squares of n errors are n / (n - 1) times too large, and they have n - 1 degrees of freedom.
    """
    from scipy.special import stdtrit

    freedom, prior = families - 1, 0 if expected is None else EXPECTED
    square = (weights * scores**2).sum() / weights.sum() * freedom / families
    square = (freedom * square + prior * (expected or 0.0) ** 2) / (freedom + prior)
    factor = stdtrit(freedom + prior, 0.5 + level / 2) * np.sqrt(1 + 1 / families)
    return float(np.sqrt(square) * factor)
