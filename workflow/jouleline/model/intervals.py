"""Prediction intervals: split-conformal by family, from errors on families (and extremes) that the fit did not
see."""

from collections.abc import Mapping

import numpy as np

from jouleline.model.features import AXES, Data

LEVELS = (0.80, 0.95)

ANY = "any"
"""Key of the widths of all rows outside the sampled range, along whatever axis."""

MANY = 20
"""Families from which a 95 % quantile of their errors can be had."""


def inner_weights(
    data: Data, train: np.ndarray, parts: int = 5, seed: int = 0, extremes: bool = True
) -> list[np.ndarray]:
    """Training masks within a fold's training rows: `parts` groups of families out, then each end of each axis out."""
    families = np.unique(data.families[train])
    if len(families) < 3:
        return []
    shuffled = np.random.default_rng(seed).permutation(families)
    held = [np.isin(data.families, shuffled[k::parts]) for k in range(min(parts, len(families)))]
    for axis in AXES if extremes else ():
        levels = np.unique(data.columns[axis][train])
        for level in (levels[0], levels[-1]) if len(levels) >= 3 else ():
            held.append(np.isin(data.families, data.families[train & (data.columns[axis] == level)]))
    if extremes:
        low, high = np.quantile(data.flop[train], [0.25, 0.75])
        for end in (data.flop < low, data.flop > high):
            held.append(np.isin(data.families, data.families[train & end]))
    masks = [train & ~out for out in held]
    return [mask for mask in masks if len(np.unique(data.families[mask])) >= 2 and (train & ~mask).any()]


def half_widths(scores: np.ndarray, families: np.ndarray, axes: np.ndarray, devices: np.ndarray) -> dict:
    """Half-widths of log intervals from absolute log errors [n], per level: within the sampled range, and outside.

    `axes` [n] says along which axes a row lay outside of what its fit had seen ("" inside, "layers,seq_len"), for a
    law may reach far along one axis and not along another: outside, every axis with MANY families has widths of its
    own, beside those of all rows outside (ANY). They are never narrower than inside. Among several `devices` [n], one
    with fewer than MANY families has widths of its own too (`few_runs`): how well the others are known says
    little of it.

    Every family weighs the same, however many rows it has, and one more family at infinity stands for the new one.
    Where there are too few families for a level's conformal quantile, a Student-t interval on the errors stands in
    its place.
    """
    out = axes != ""
    inside = _stratum(scores[~out], families[~out])
    strata = {ANY: _stratum(scores[out], families[out])}
    for axis in sorted({one for row in set(axes[out].tolist()) for one in row.split(",")}):
        along = np.array([axis in row.split(",") for row in axes.tolist()])
        stratum = _stratum(scores[along], families[along])
        if stratum["families"] >= MANY:
            strata[axis] = stratum
    outside = {
        axis: {level: _widest([width, inside["widths"][level]]) for level, width in one["widths"].items()}
        for axis, one in strata.items()
    }
    return {
        "families": inside["families"],
        "method": inside["method"],
        "inside": inside["widths"],
        "outside": outside,
        "few_runs": _few_runs(scores, families, devices),
    }


def _few_runs(scores: np.ndarray, families: np.ndarray, devices: np.ndarray) -> dict[str, dict]:
    names = sorted(set(devices.tolist())) if len(set(devices.tolist())) > 1 else []
    strata = {name: _stratum(scores[devices == name], families[devices == name]) for name in names}
    return {name: one["widths"] for name, one in strata.items() if one["families"] < MANY}


def row_widths(widths: Mapping, level: float, axes: np.ndarray, devices: np.ndarray) -> np.ndarray:
    """Half-width of each row's log interval [R] by `half_widths`' document; NaN where there is none."""
    key = f"{level:.2f}"
    inside = widths.get("inside", {}).get(key)
    found = np.full(len(axes), np.nan if inside is None else inside)
    for one in set(axes.tolist()) - {""}:
        width = width_outside(widths.get("outside", {}), one, key)
        found[axes == one] = np.nan if width is None else width
    for device, own in widths.get("few_runs", {}).items():
        if own[key] is not None:
            rows = devices == device
            found[rows] = np.fmax(found[rows], own[key])
    return found


def width_outside(outside: Mapping[str, Mapping[str, float | None]], axes: str, level: str) -> float | None:
    """The half-width of a row that lies outside along `axes`: the widest of theirs.

    For an axis without widths of its own nothing is known, so the widest of all stands in.
    """
    names = axes.split(",")
    chosen = names if all(name in outside for name in names) else outside
    return _widest([outside[name].get(level) for name in chosen])


def _widest(widths: list[float | None]) -> float | None:
    return max((width for width in widths if width is not None), default=None)


def _stratum(scores: np.ndarray, families: np.ndarray) -> dict:
    finite = np.isfinite(scores)
    scores, families = np.abs(scores[finite]), families[finite]
    codes, index, counts = np.unique(families, return_inverse=True, return_counts=True)
    widths, methods = {}, {}
    for level in LEVELS:
        width, method = None, None
        if len(codes) >= 2:
            width, method = _conformal(scores, 1 / counts[index], len(codes), level), "conformal"
            if width is None:
                width, method = _student(scores, 1 / counts[index], len(codes), level), "student-t"
        widths[f"{level:.2f}"], methods[f"{level:.2f}"] = width, method
    return {"families": len(codes), "widths": widths, "method": methods}


def _conformal(scores: np.ndarray, weights: np.ndarray, families: int, level: float) -> float | None:
    order = np.argsort(scores)
    reached = np.cumsum(weights[order]) / (families + 1)
    above = np.flatnonzero(reached >= level - 1e-12)
    return float(scores[order][above[0]]) if len(above) else None


def _student(scores: np.ndarray, weights: np.ndarray, families: int, level: float) -> float:
    from scipy.special import stdtrit

    spread = np.sqrt((weights * scores**2).sum() / weights.sum())
    factor = stdtrit(max(families - 1, 1), 0.5 + level / 2) * np.sqrt(1 + 1 / families)
    return float(spread * factor)
