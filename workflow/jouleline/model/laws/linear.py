"""Laws that are linear in their parameters: exact least squares, and NaN for rows that the training rows do not
reach."""

from dataclasses import dataclass, field

import numpy as np

from jouleline.model.base import USEFUL, State, not_identified, parameter


@dataclass(frozen=True)
class Design:
    """A law's columns: `numbers` name -> [R], `categories` name -> labels [R], and the fixed `offset` [R]."""

    numbers: dict[str, np.ndarray]
    categories: dict[str, np.ndarray] = field(default_factory=dict)
    offset: np.ndarray | float = 0.0


def matrix(design: Design, rows: int, levels: dict[str, list[str]]) -> tuple[np.ndarray, list[str]]:
    """Intercept, numbers, then one indicator per level of each category after the first: ([R, P], names)."""
    columns, names = [np.ones(rows)], ["intercept"]
    for name, values in design.numbers.items():
        columns.append(values)
        names.append(name)
    for name, known in levels.items():
        for level in known[1:]:
            columns.append((design.categories[name] == level).astype(float))
            names.append(f"{name}={level}")
    return np.stack(columns, axis=1), names


def fit(
    design: Design, target: np.ndarray, weights: np.ndarray, reference: dict[str, str] | None = None
) -> State:
    """Weighted least squares of `target` [R]. The state predicts only rows that the training rows reach.

    `reference` names the level of a category that the intercept stands for (default: the first). The training rows may
    not tell some columns apart. These columns keep a joint prediction, but their coefficients are reported as not
    identified.
    """
    used = (weights > 0) & np.isfinite(target)
    for values in design.numbers.values():
        used &= np.isfinite(values)
    if not used.any():
        return not_identified("no training rows with this efficiency")
    levels = _levels(design, used, reference or {})
    full, names = matrix(design, len(target), levels)
    root = np.sqrt(weights[used])
    x, y = full[used] * root[:, None], (target - design.offset)[used] * root
    centre = np.maximum(np.abs(x).max(axis=0), 1e-300)
    left, singular, right = np.linalg.svd(x / centre, full_matrices=False)
    kept = singular > singular[0] * 1e-9
    basis = right[kept]
    coefficients = (basis.T @ ((left[:, kept].T @ y) / singular[kept])) / centre
    spare = int(used.sum() - kept.sum())
    residual = y - x @ coefficients
    variance = float(residual @ residual) / max(spare, 1)
    reachable = np.isclose((basis**2).sum(axis=0), 1, atol=1e-6) & (spare > 0)
    sd = np.sqrt(variance * ((basis.T / singular[kept]) ** 2).sum(axis=1)) / centre
    return {
        "identified": spare > 0,
        "reason": None if spare > 0 else f"{used.sum()} training rows for {kept.sum()} coefficients",
        "names": names,
        "levels": levels,
        "coefficients": coefficients.tolist(),
        "basis": basis.tolist(),
        "centre": centre.tolist(),
        # The variance of a prediction has two parts: that of a run, and the spread along each direction of the design.
        "variance": variance,
        "spare": spare,
        "singular": singular[kept].tolist(),
        "parameters": {
            name: parameter(value, "", spread, bool(ok), log=False)
            for name, value, spread, ok in zip(names, coefficients, sd, reachable, strict=True)
        },
        "diagnostics": _diagnostics(singular, residual, y, spare),
    }


def _levels(design: Design, used: np.ndarray, reference: dict[str, str]) -> dict[str, list[str]]:
    """The levels of each category in the training rows. The level of the intercept stands first."""
    levels = {}
    for name, labels in design.categories.items():
        seen = sorted(set(labels[used].tolist()))
        first = reference.get(name)
        levels[name] = [first, *(one for one in seen if one != first)] if first in seen else seen
    return levels


def _diagnostics(singular: np.ndarray, residual: np.ndarray, y: np.ndarray, spare: int) -> dict:
    total = float(((y - y.mean()) ** 2).sum())
    explained = 1 - float(residual @ residual) / total if total > 0 else None
    return {
        "singular_values": [float(value) for value in singular],
        "condition_number": float(singular[0] / max(singular[-1], 1e-300)),
        "train_log_rmse_energy": float(np.sqrt(np.mean(residual**2))),
        "r2_train": explained,
        "adjusted_r2_train": 1 - (1 - explained) * (len(y) - 1) / spare
        if explained is not None and spare > 0
        else None,
    }


def predict(state: State, design: Design, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(prediction [R], whether the training rows reach the row [R]); NaN where they do not."""
    if "coefficients" not in state:
        return np.full(rows, np.nan), np.zeros(rows, dtype=bool)
    x, _ = matrix(design, rows, state["levels"])
    known = np.isfinite(x).all(axis=1)
    for name, levels in state["levels"].items():
        known &= np.isin(design.categories[name].astype(str), np.array(levels, dtype=str))
    scaled = np.where(known[:, None], x, 0) / np.array(state["centre"])
    basis = np.array(state["basis"])
    outside = np.abs(scaled - scaled @ basis.T @ basis).max(axis=1)
    known &= outside < 1e-6 * np.maximum(np.abs(scaled).max(axis=1), 1)
    known &= _half_width(state, scaled @ basis.T) <= USEFUL
    value = x @ np.array(state["coefficients"]) + design.offset
    return np.where(known, value, np.nan), known


def _half_width(state: State, directions: np.ndarray) -> np.ndarray:
    """Half-width [R] of the 95 % interval of the law's own value, in log, from `directions` [R, kept].

    It is large where the training rows hardly reach, because the design is nearly singular there.
    """
    from scipy.special import stdtrit

    if not state["spare"]:
        return np.full(len(directions), np.inf)
    leverage = ((directions / np.array(state["singular"])) ** 2).sum(axis=1)
    return stdtrit(state["spare"], 0.975) * np.sqrt(state["variance"] * leverage)
