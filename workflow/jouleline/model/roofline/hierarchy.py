"""How much devices and precisions differ from what calibration or data sheets say. This is learnt from the whole table.

The deviations are draws from one population. Its width is that of the priors of `structure`, times a factor. The
factor's marginal likelihood around a point (Laplace's approximation) is that of a linear model: MacKay, Neural
Computation 4 (1992), "Bayesian Interpolation".
"""

import numpy as np

from jouleline.model.roofline import law

_SD = 0.7
"""The prior of the log of the factor. What one or two devices say hardly moves it."""

_FACTORS = np.exp(np.linspace(np.log(0.1), np.log(10), 41))


def factor(
    normal: np.ndarray, gradient: np.ndarray, theta: np.ndarray, prior_sd: np.ndarray, deviations: np.ndarray
) -> float:
    """The factor on the prior sds [P] of `deviations` (mask): the geometric mean of its posterior.

    The most likely factor would be far too small where a few runs agree by chance.

    `normal` [P, P] and `gradient` [P] belong to the negative log likelihood of the data at `theta` [P].
    """
    scales = np.where(deviations, _FACTORS[:, None], 1.0)
    precision = (prior_sd * scales) ** -2.0
    pull = normal @ theta - gradient
    posterior = normal + precision[:, :, None] * np.eye(len(theta))
    fit = np.linalg.solve(posterior, np.broadcast_to(pull, precision.shape)[..., None])[..., 0] @ pull
    evidence = np.log(precision).sum(axis=1) - np.linalg.slogdet(posterior)[1] + fit
    log_odds = 0.5 * (evidence - (np.log(_FACTORS) / _SD) ** 2)
    odds = np.exp(log_odds - log_odds.max())
    return float(np.exp(odds @ np.log(_FACTORS) / odds.sum()))


def unseen(problem, k: int, theta: np.ndarray) -> dict[str, dict[str, float]]:
    """By axis (device, precision): the sd of the log time and energy of one more level of it.

    Such a level is another draw from the population of the k-th problem. The sd holds at the median training row of a
    `Problem`. An axis about which the priors say nothing is left out.
    """
    used = problem.weights[k] > 0
    with np.errstate(over="ignore", invalid="ignore"):
        slopes = law.step(problem.values(theta[None], np.array([k])), problem.rows)[2:]
    found = {}
    for axis in ("device", "precision"):
        sds, levels = {}, set()
        for name, slot in problem.structure.slots.items():
            columns = [column for column in slot.loads if problem.structure.deviations[column]]
            of = getattr(slot, f"{axis}s")
            if columns and len(set(of)) > 1:
                sds[name] = problem.prior_sd[k, columns].max()
                levels |= {of[code] for code in np.unique(slot.group[used])}
        if not levels:
            continue
        found[axis] = {}
        for target, slope in zip(("time", "energy"), slopes, strict=True):
            squares = np.zeros((1, len(used)))
            for name in sds.keys() & slope.keys():
                squares = squares + (slope[name] * sds[name]) ** 2
            found[axis][target] = float(np.sqrt(np.median(squares[0, used]) * (1 + 1 / len(levels))))
    return found
