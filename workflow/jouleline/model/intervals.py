"""Prediction intervals: split-conformal by family, from errors on families (and extremes) that the fit did not
see."""

import numpy as np

from jouleline.model.features import AXES, Data

LEVELS = (0.80, 0.95)


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


def half_widths(scores: np.ndarray, families: np.ndarray, beyond: np.ndarray) -> dict:
    """Half-widths of log intervals from absolute log errors [n], per level, within and outside the sampled range.

    Every family weighs the same, however many rows it has, and one more family at infinity stands for the new one.
    Where there are too few families for a level's conformal quantile, a Student-t interval on the errors stands in
    its place.
    """
    inside = _stratum(scores[~beyond], families[~beyond])
    out = _stratum(scores[beyond], families[beyond])
    widths: dict = {
        "families": inside["families"],
        "method": inside["method"],
        "inside": inside["widths"],
        "outside": {},
    }
    for level, width in inside["widths"].items():
        wider = out["widths"].get(level)
        widths["outside"][level] = wider if width is None else width if wider is None else max(width, wider)
    return widths


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
