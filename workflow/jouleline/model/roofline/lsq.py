"""Robust nonlinear least squares from many starts, for many weightings of the same rows at once.

It minimises sum_i w_i rho(r_i(theta)) + 1/2 sum_j (theta_j / sd_j)^2. rho is the Huber function with threshold 1
(residuals are in units of the threshold). Folds, bootstrap draws and inner calibration folds differ only in w, so they
are one batch. A batched Levenberg-Marquardt improves all starts. Then scipy's trust-region solver optimises the best
one. The batched solver is needed although scipy has one. scipy takes one problem at a time, and a call costs far more
than the arithmetic of so few parameters. Here all starts of all folds share each evaluation of the law.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from jouleline.model.roofline.jacobian import Jacobian

# Residuals of one batch of starts. Arrays of this size stay in the cache.
_CHUNK = 2**16

# With more residuals than this, scipy's solver costs more than it gains, because it factors the whole Jacobian.
_MOST_POLISHED = 10_000

Evaluate = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Jacobian]]
"""(theta [B, P], problem index [B]) -> residuals [B, M], their Jacobian."""


@dataclass(frozen=True)
class Solution:
    """Optima of several problems: theta [K, P], cost [K], and how far the starts agree."""

    theta: np.ndarray
    cost: np.ndarray
    agreeing: np.ndarray  # [K] share of the starts that reached the best cost
    starts: int


def sobol_starts(count: int, dimensions: int, spread: np.ndarray, seed: int = 0) -> np.ndarray:
    """`count` scrambled Sobol points in the box +-spread [P]. The first start is the centre itself."""
    from scipy.stats import qmc

    power = int(np.ceil(np.log2(max(count, 2))))
    points = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random_base2(power)[:count]
    starts = (2 * points - 1) * spread
    starts[0] = 0
    return starts


def minimise(
    evaluate: Evaluate,
    weights: np.ndarray,
    prior_sd: np.ndarray,
    starts: np.ndarray,
    polish: bool = True,
    tolerance: float = 1e-9,
) -> Solution:
    """Solve K problems (weights [K, M], prior_sd [K, P]) from starts [K, S, P]. The module gives the objective.

    A start stops when two steps in a row lower its cost by less than `tolerance` of it. It agrees when its cost is
    within 0.1 % and 0.01 of the best. Returns the best optimum of each problem.
    """
    theta, cost = descend(evaluate, weights, prior_sd, starts, tolerance=tolerance)
    best = np.argmin(cost, axis=1)
    rows = np.arange(len(starts))
    lowest = cost[rows, best]
    agreeing = reach(cost, lowest[:, None]).mean(axis=1)
    found = theta[rows, best]
    if polish and weights.shape[1] <= _MOST_POLISHED:
        for k in rows:
            found[k], lowest[k] = _trust_region(evaluate, found[k], k, weights[k], prior_sd[k])
    return Solution(found, lowest, agreeing, starts.shape[1])


def reach(cost: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """Whether a cost equals the lowest one, apart from what an unfinished descent may leave."""
    return cost <= lowest * 1.001 + 0.01


def descend(
    evaluate: Evaluate,
    weights: np.ndarray,
    prior_sd: np.ndarray,
    starts: np.ndarray,
    iterations: int = 150,
    tolerance: float = 1e-9,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each start of `minimise` ends: theta [K, S, P] and its cost [K, S]."""
    problems, count, size = starts.shape
    theta = starts.reshape(problems * count, size).copy()
    index = np.repeat(np.arange(problems), count)
    cost = np.empty(len(theta))
    per_chunk = max(1, _CHUNK // weights.shape[1])

    def solve(begin: int) -> None:
        part = slice(begin, begin + per_chunk)
        theta[part], cost[part] = _descend(
            evaluate, theta[part], index[part], weights, prior_sd, iterations, tolerance
        )

    # numpy works without the interpreter's lock, so all cores share the batches.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(solve, range(0, len(theta), per_chunk)))
    return theta.reshape(problems, count, size), cost.reshape(problems, count)


def lowest_of_each(theta: np.ndarray, cost: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The `most` lowest ends that differ in cost, [K, most, P], of the ends [K, S, P] of many starts.

    Beside them stands the share of the starts that reached each, [K, most]. Where there are fewer such ends, the lowest
    one is repeated with share 0.
    """
    found = np.repeat(theta[np.arange(len(theta)), np.argmin(cost, axis=1)][:, None], most, axis=1)
    share = np.zeros((len(theta), most))
    for k in range(len(theta)):
        left = np.isfinite(cost[k])
        for place in range(most):
            if not left.any():
                break
            best = np.argmin(np.where(left, cost[k], np.inf))
            same = left & reach(cost[k], cost[k, best])
            found[k, place], share[k, place] = theta[k, best], same.mean()
            left &= ~same
    return found, share


def _cost(residuals: np.ndarray, weights: np.ndarray, theta: np.ndarray, prior_sd: np.ndarray) -> np.ndarray:
    size = np.abs(residuals)
    huber = np.where(size <= 1, 0.5 * residuals**2, size - 0.5)
    return (weights * huber).sum(axis=-1) + 0.5 * ((theta / prior_sd) ** 2).sum(axis=-1)


def normal_equations(
    residuals: np.ndarray, jacobian: Jacobian, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(J^T W J [B, P, P], J^T W r [B, P]) with the Huber weights min(1, 1/|r|) in W."""
    return jacobian.normal(weights / np.maximum(np.abs(residuals), 1), residuals)


def _descend(evaluate, theta, index, weights, prior_sd, iterations, tolerance):
    """Batched Levenberg-Marquardt: theta [B, P] -> (theta, cost). Each problem has its own damping."""
    theta = theta.copy()
    prior_sd = prior_sd[index]
    precision = prior_sd**-2.0
    unit = np.eye(theta.shape[1])
    residuals, jacobian = evaluate(theta, index)
    cost = _cost(residuals, weights[index], theta, prior_sd)
    matrix, gradient = normal_equations(residuals, jacobian, weights[index])
    damping = np.full(len(theta), 1e-2)
    small = np.zeros(len(theta), dtype=int)
    live = np.arange(len(theta))
    for _ in range(iterations):
        here = matrix[live] + unit * precision[live, None, :]
        slope = gradient[live] + theta[live] * precision[live]
        scale = np.einsum("bii->bi", here) * damping[live, None]
        step = -np.linalg.solve(here + unit * scale[:, None, :], slope[..., None])[..., 0]
        trial = theta[live] + np.clip(step, -2.0, 2.0)
        residuals, jacobian = evaluate(trial, index[live])
        with np.errstate(invalid="ignore"):
            trial_cost = _cost(residuals, weights[index[live]], trial, prior_sd[live])
        better = trial_cost < cost[live]
        gain = np.where(better, (cost[live] - trial_cost) / (cost[live] + 1e-12), 0)
        won = live[better]
        theta[won], cost[won] = trial[better], trial_cost[better]
        matrix[won], gradient[won] = normal_equations(
            residuals[better], jacobian.some(better), weights[index[won]]
        )
        damping[live] = np.clip(np.where(better, damping[live] / 5, damping[live] * 4), 1e-12, 1e12)
        small[live] = np.where(better & (gain > tolerance), 0, small[live] + (better | (damping[live] > 1e8)))
        live = live[(small[live] < 2) & (damping[live] < 1e11)]
        if not len(live):
            break
    return theta, cost


def _trust_region(evaluate, start, problem, weights, prior_sd):
    """scipy's trust-region reflective solver to 1e-10 on one problem: (theta, cost). The result is never worse than the
    start."""
    from scipy.optimize import least_squares

    index = np.array([problem])
    kept = np.append(weights, np.ones(len(start)))
    rows = len(weights)

    def residuals(theta):
        return np.append(evaluate(theta[None], index)[0][0], theta / prior_sd)

    def jacobian(theta):
        return np.vstack([evaluate(theta[None], index)[1].dense()[0].T, np.diag(1 / prior_sd)])

    def loss(z):  # Huber on the data, quadratic on the priors. A weight multiplies the loss of its row
        root = np.sqrt(np.maximum(z, 1))
        outer = (z > 1) & (np.arange(len(z)) < rows)
        value = np.where(outer, 2 * root - 1, z)
        first = np.where(outer, 1 / root, 1.0)
        second = np.where(outer, -0.5 / root**3, 0.0)
        return np.stack([value, first, second]) * kept

    def cost(theta):
        return float(_cost(residuals(theta)[:rows], weights, theta, prior_sd))

    result = least_squares(
        residuals, start, jacobian, loss=loss, method="trf", ftol=1e-10, xtol=1e-10, gtol=1e-10, max_nfev=200
    )
    before, after = cost(start), cost(result.x)
    return (result.x, after) if after <= before else (start, before)
