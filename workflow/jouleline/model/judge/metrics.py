"""How far predictions are from measurements, with intervals that resample families, and the noise floor."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jouleline.model.table.runs import WORKLOAD, Columns

DRAWS = 1000

CHOICES = ("micro_batch", "grad_accum", "precision", "attention", "gradient_checkpointing")
"""What one may choose of a workload, in addition to strategy and device count, and still train the same model."""

EQUAL_WORK = (*(name for name in WORKLOAD if name not in CHOICES), "device")
"""The same model, trained in the same way on the same data, on the same kind of device."""


def errors(
    measured: np.ndarray, predicted: np.ndarray, families: np.ndarray, tokens: np.ndarray
) -> dict[str, float | None]:
    """MAPE with its family-clustered 95 % interval, median and 90th-percentile APE, log-RMSE, R2 in log, signed bias.

    All inputs [n] are positive. Errors are fractions. Bias is exp(mean log ratio) - 1. R2 is that of the measured value
    per token. The protocol decides how many tokens a window holds, so the variance of the value itself says nothing. R2
    is null where the value per token does not vary.
    """
    ape = np.abs(predicted / measured - 1)
    log_error = np.log(predicted / measured)
    per_token = np.log(measured / tokens)
    spread = float(((per_token - per_token.mean()) ** 2).sum())
    low, high = clustered_interval(ape, families)
    return {
        "mape": float(ape.mean()),
        "mape_lo95": low,
        "mape_hi95": high,
        "median_ape": float(np.median(ape)),
        "p90_ape": float(np.quantile(ape, 0.9)),
        "log_rmse": float(np.sqrt(np.mean(log_error**2))),
        "r2_log": 1 - float((log_error**2).sum()) / spread if spread > 1e-12 else None,
        "bias": float(np.exp(log_error.mean()) - 1),
    }


def clustered_interval(
    values: np.ndarray, families: np.ndarray, seed: int = 0
) -> tuple[float | None, float | None]:
    """95 % interval of the mean of `values` [n] by resampling whole families. Null with fewer than three families."""
    codes, index = np.unique(families, return_inverse=True)
    if len(codes) < 3:
        return None, None
    total, count = np.bincount(index, values), np.bincount(index)
    draws = np.random.default_rng(seed).multinomial(
        len(codes), np.full(len(codes), 1 / len(codes)), size=DRAWS
    )
    low, high = np.quantile(draws @ total / (draws @ count), [0.025, 0.975])
    return float(low), float(high)


def coverage(measured: np.ndarray, low: np.ndarray, high: np.ndarray) -> float | None:
    """Share of the measurements inside their interval, among those that have one."""
    has = np.isfinite(low) & np.isfinite(high)
    return float(((measured >= low) & (measured <= high))[has].mean()) if has.any() else None


def half_width(predicted: np.ndarray, high: np.ndarray) -> float | None:
    """Median factor from a prediction to the end of its interval (1.25: 25 % above)."""
    ratio = (high / predicted)[np.isfinite(high)]
    return float(np.median(ratio)) if len(ratio) else None


def noise_floor(columns: Columns) -> dict[str, Any]:
    """Pooled coefficient of variation of replicates (the same configuration run again), as log standard deviations.

    Null where nothing was repeated.
    """
    keys = [*WORKLOAD, "device", "device_count", "nodes", "tensor_parallel", "zero_stage"]
    codes = _codes(columns, keys)
    floor: dict[str, Any] = {"energy_cv": None, "time_cv": None, "n_groups": 0}
    groups = [
        np.flatnonzero(codes == code) for code, n in zip(*np.unique(codes, return_counts=True)) if n > 1
    ]
    if not groups:
        return floor
    floor["n_groups"] = len(groups)
    freedom = sum(len(rows) - 1 for rows in groups)
    for name, column in (("energy_cv", "energy_j"), ("time_cv", "time_s")):
        logs = np.log(columns[column] / columns["steps"])
        floor[name] = float(
            np.sqrt(sum(((logs[rows] - logs[rows].mean()) ** 2).sum() for rows in groups) / freedom)
        )
    return floor


def _codes(columns: Mapping[str, np.ndarray], keys: list[str] | tuple[str, ...]) -> np.ndarray:
    rows = ["|".join(map(str, row)) for row in zip(*(columns[key].tolist() for key in keys), strict=True)]
    return np.unique(np.array(rows), return_inverse=True)[1]


def choice(
    columns: Columns, predicted_energy_j: np.ndarray, noise: float | None = None
) -> dict[str, float | None]:
    """How well a model ranks configurations of equal work by J per token.

    The groups are those of EQUAL_WORK (replicates averaged, at least two configurations each). The result has Kendall's
    tau-b, averaged by number of pairs (groups of at least three), the share of groups whose cheapest configuration is
    picked, and the mean extra energy of the pick. The ceilings are the values of a perfect model under noise: the
    measured means are taken as the truth, and the model differs from them only by the noise of such means. This is
    `noise` of one run (log standard deviation; None: not known) over the root of the number of its replicates.
    """
    groups = _codes(columns, EQUAL_WORK)
    configurations = _codes(columns, [*WORKLOAD, "device_count", "nodes", "tensor_parallel", "zero_stage"])
    tokens = columns["tokens"].astype(float)
    measured, predicted = columns["energy_j"] / tokens, predicted_energy_j / tokens
    found = []
    for group in np.unique(groups):
        rows = groups == group
        codes, index, counts = np.unique(configurations[rows], return_inverse=True, return_counts=True)
        if len(codes) < 2:
            continue
        truth, guess = (np.bincount(index, values[rows]) / counts for values in (measured, predicted))
        picked = truth[np.argmin(guess)]
        scores = (kendall_tau(truth, guess), picked == truth.min(), picked / truth.min() - 1)
        ceilings = (np.nan, np.nan) if noise is None else _ceilings(truth, noise / np.sqrt(counts))
        found.append((len(codes), *scores, *ceilings))
    names = ("kendall_tau", "top1", "regret", "kendall_tau_ceiling", "top1_ceiling")
    if not found:
        return dict.fromkeys(names) | {"n_choice_groups": 0}
    size, *columns_found = np.array(found, dtype=float).T
    pairs = np.where(size >= 3, size * (size - 1) / 2, 0)
    merged: dict[str, Any] = {"n_choice_groups": len(found)}
    for name, values in zip(names, columns_found, strict=True):
        weights = pairs if name.startswith("kendall") else np.ones(len(found))
        known = weights.any() and np.isfinite(values).all()
        merged[name] = float(np.average(values, weights=weights)) if known else None
    return merged


def _ceilings(truth: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Expected Kendall tau and hit rate of the truth [n] under log-normal noise of the given sd [n]."""
    from scipy.special import erf

    logs, upper = np.log(truth), np.triu_indices(len(truth), 1)
    apart = np.abs(np.subtract.outer(logs, logs)[upper])
    together = np.hypot.outer(noise, noise)[upper]
    in_order = erf(apart / np.maximum(together, 1e-12) / np.sqrt(2))  # P(right) - P(wrong) of each pair
    draws = logs + noise * np.random.default_rng(0).normal(size=(1000, len(truth)))
    return float(in_order.mean()), float((draws.argmin(axis=1) == logs.argmin()).mean())


def kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b of two vectors [n]; 0 where one is constant."""
    upper = np.triu_indices(len(a), 1)
    da, db = np.sign(np.subtract.outer(a, a)[upper]), np.sign(np.subtract.outer(b, b)[upper])
    size = np.sqrt((da != 0).sum() * (db != 0).sum())
    return float((da * db).sum() / size) if size else 0.0
