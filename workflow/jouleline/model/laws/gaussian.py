"""Gaussian process regression (Matern 5/2, one length per column). Hyper-parameters come from the marginal likelihood.

Source: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), eqs. 2.25 and 5.9. The process is written
out here, so a fitted one is plain JSON and no pickle is needed to read it.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from jouleline.model.base import Context, Prediction, State, not_identified, nothing
from jouleline.model.features import Data
from jouleline.model.laws import tabular

_MOST_POINTS = 250
"""Configurations on which the hyper-parameters are chosen. The process itself keeps all configurations."""

_EXACT, _INDUCING = 1000, 400
"""Up to the first number of configurations a process is conditioned on each of them. Beyond it, it is summed over the
second number of them."""

_JITTER = 1e-8

_LENGTH = (np.log(3.0), 1.0)


@dataclass(frozen=True)
class Kernel:
    """Priors of the size of the signal and of the noise of a run: the mean and sd of their logs."""

    signal: tuple[float, float]
    noise: tuple[float, float]


_TIME_NOISE, _POWER_NOISE = (np.log(0.003), 0.5), (np.log(0.02), 0.7)
"""A clock measures the time of a step far better than a meter measures its power. Repeated runs outweigh this
prior."""

RAW = {"time": Kernel((np.log(1.5), 1.0), _TIME_NOISE), "power": Kernel((np.log(0.5), 1.0), _POWER_NOISE)}
RESIDUAL = {
    name: Kernel((np.log(0.05), 1.0), noise)
    for name, noise in (("time", _TIME_NOISE), ("power", _POWER_NOISE))
}


@dataclass(frozen=True)
class Points:
    """The distinct configurations x [n, P] of some runs. The likelihood needs no more than this of replicates.

    `counts` [n] is the number of runs of each, and `y` [n] their mean target. `within` is the sum of squares of the
    runs around their means.
    """

    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    within: float

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "Points":
        """From one row per run: x [R, P], y [R]."""
        distinct, index, counts = np.unique(x, axis=0, return_inverse=True, return_counts=True)
        index = index.reshape(-1)
        means = np.bincount(index, y) / counts
        return cls(distinct, means, counts.astype(float), float(((y - means[index]) ** 2).sum()))

    def some(self, count: int, seed: int) -> "Points":
        """Draw `count` of the points. The scatter within the others is left out in proportion."""
        if len(self.y) <= count:
            return self
        kept = np.random.default_rng(seed).permutation(len(self.y))[:count]
        spare = (self.counts - 1).sum()
        share = (self.counts[kept] - 1).sum() / spare if spare else 0.0
        return Points(self.x[kept], self.y[kept], self.counts[kept], self.within * share)


def _covariance(squares: np.ndarray, hyper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K [n, n], the factor that all dK/dlog length have in common) from squared differences [P, n, n]."""
    signal, inverse = np.exp(2 * hyper[0]), np.exp(-2 * hyper[2:])
    distance = np.sqrt(5 * np.maximum(np.tensordot(inverse, squares, 1), 0))
    decay = signal * np.exp(-distance)
    return decay * (1 + distance + distance**2 / 3), decay * (1 + distance) * 5 / 3


def _loss(hyper: np.ndarray, squares: np.ndarray, points: Points, mean: np.ndarray, sd: np.ndarray):
    """Negative log posterior of the hyper-parameters (log signal, log noise, log lengths), and its gradient.

    A point of m runs has a mean with an m-th of the noise variance. The scatter within points adds its own likelihood.
    """
    from scipy.linalg.lapack import dpotrf, dpotri

    kernel, slope = _covariance(squares, hyper)
    noise, spare = np.exp(2 * hyper[1]), (points.counts - 1).sum()
    lower, failed = dpotrf((kernel + np.diag(noise / points.counts + _JITTER)).T, lower=1)
    if failed:
        raise np.linalg.LinAlgError("the covariance is not positive definite")
    inverse = np.tril(dpotri(lower, lower=1)[0])
    inverse += np.tril(inverse, -1).T
    alpha = inverse @ points.y
    away = (hyper - mean) / sd
    value = 0.5 * points.y @ alpha + np.log(np.diag(lower)).sum() + 0.5 * away @ away
    value += spare * hyper[1] + 0.5 * points.within / noise
    pull = inverse - np.outer(alpha, alpha)
    gradient = np.empty(len(hyper))
    gradient[0] = (pull * kernel).sum()
    gradient[1] = (np.diag(pull) / points.counts).sum() * noise + spare - points.within / noise
    gradient[2:] = 0.5 * np.tensordot(squares, pull * slope, 2) * np.exp(-2 * hyper[2:])
    return value, gradient + away / sd


def choose_hyper(points: Points, kernel: Kernel, seed: int) -> np.ndarray:
    """Hyper-parameters (log signal, log noise, log lengths [P]). scipy's L-BFGS-B starts from the centre of the
    prior."""
    from scipy.optimize import minimize

    points = points.some(_MOST_POINTS, seed)
    columns = points.x.T
    squares = (columns[:, :, None] - columns[:, None]) ** 2
    priors = np.array([kernel.signal, kernel.noise, *[_LENGTH] * len(columns)])
    mean, sd = priors.T
    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(mean, sd, strict=True)]
    arguments = (squares, points, mean, sd)
    return minimize(
        _loss, mean, arguments, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
    ).x


def condition(points: Points, hyper: np.ndarray, bases: np.ndarray | None = None) -> np.ndarray:
    """alpha [m] of the posterior mean k(x, bases) @ alpha, for bases [m, P]. By default the bases are the points
    themselves.

    With the points, alpha = (K + noise / counts)^-1 y. Fewer bases give the subset of regressors (eq. 8.14) at a cost
    of n m^2: alpha = (noise K_mm + K_mn counts K_nm)^-1 K_mn counts y, by two Cholesky factors.
    """
    from scipy.linalg import cho_factor, cho_solve, solve_triangular

    scale, signal, noise = np.exp(-hyper[2:]), np.exp(2 * hyper[0]), np.exp(2 * hyper[1])
    if bases is None:
        kernel = signal * correlation(points.x * scale, points.x * scale)
        return np.linalg.solve(kernel + np.diag(noise / points.counts + _JITTER), points.y)
    within = signal * (correlation(bases * scale, bases * scale) + 1e-6 * np.eye(len(bases)))
    lower = np.linalg.cholesky(within)
    root = np.sqrt(points.counts / noise)
    across = solve_triangular(lower, signal * correlation(bases * scale, points.x * scale), lower=True) * root
    inner = cho_factor(np.eye(len(bases)) + across @ across.T)
    return solve_triangular(lower.T, cho_solve(inner, across @ (root * points.y)))


def mean(x: np.ndarray, train: np.ndarray, alpha: np.ndarray, hyper: np.ndarray) -> np.ndarray:
    """Posterior mean [R] at x [R, P]. It goes to 0 far from the training rows."""
    scale = np.exp(-hyper[2:])
    here, there = x * scale, train * scale
    found = np.empty(len(x))
    step = max(1, 2**17 // max(len(train), 1))  # a block of distances that stays in the cache

    def fill(begin: int) -> None:
        found[begin : begin + step] = correlation(here[begin : begin + step], there) @ alpha

    # numpy works without the interpreter's lock, so all cores share the blocks of a long table.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(fill, range(0, len(x), step)))
    return np.exp(2 * hyper[0]) * found


def correlation(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Matern 5/2 correlation (1 + d + d^2/3) exp(-d), d^2 = 5 r^2, [n, m], of points in units of the lengths.

    It is computed in place, because passes over this matrix take most of the time of a prediction of many rows.
    """
    squares = here @ (-10 * there).T
    squares += 5 * (here**2).sum(axis=1)[:, None]
    squares += 5 * (there**2).sum(axis=1)
    np.maximum(squares, 0, out=squares)
    distance = np.sqrt(squares)
    squares /= 3
    squares += distance
    squares += 1
    np.negative(distance, out=distance)
    np.exp(distance, out=distance)
    squares *= distance
    return squares


def log_targets(data: Data) -> dict[str, np.ndarray]:
    """Log time of a step and log of its mean power, [R]. They are kept apart, because their noise differs in size. Log
    energy is their sum."""
    time = np.log(data.step_time_s)
    return {"time": time, "power": np.log(data.step_energy_j) - time}


class Residuals:
    """Gaussian processes of one or more targets over raw configurations. The GP baseline and the hybrid share this."""

    def __init__(self, kernels: dict[str, Kernel]):
        """`kernels` are those of the targets, by name."""
        self.kernels = kernels

    def fit(
        self, data: Data, used: np.ndarray, targets: dict[str, np.ndarray], seed: int, warm: dict | None
    ) -> dict:
        """Fit `targets` (name -> [R]) on the rows `used` (mask). With `warm`, its hyper-parameters and columns are
        kept.

        These hyper-parameters have seen the rows that an inner fit leaves out. They were chosen again without these
        rows as a test. The prediction intervals then had the same width (public table, H0 and H8: within 0.3 %) and no
        better coverage, and this took five times as long.
        """
        how = warm["columns"] if warm else tabular.encoder(data, used)
        x = tabular.encode(data, how)[0][used]
        fitted: dict[str, Any] = {"columns": how, "targets": {}}
        for name, values in targets.items():
            points = Points.of(x, values[used])
            hyper = (
                np.array(warm["targets"][name]["hyper"])
                if warm
                else choose_hyper(points, self.kernels[name], seed)
            )
            bases = points.some(_INDUCING, seed).x if len(points.y) > _EXACT else None
            fitted["x"] = (points.x if bases is None else bases).tolist()
            alpha = condition(points, hyper, bases)
            fitted["targets"][name] = {"hyper": hyper.tolist(), "alpha": alpha.tolist()}
        return fitted

    def predict(self, fitted: dict, data: Data) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Posterior means by target [R], and whether the categories of each row were seen [R]."""
        x, known = tabular.encode(data, fitted["columns"])
        train = np.array(fitted["x"]).reshape(-1, x.shape[1])
        means = {
            name: mean(x, train, np.array(one["alpha"]), np.array(one["hyper"]))
            for name, one in fitted["targets"].items()
        }
        return means, known


class GaussianProcess:
    """A baseline: log time and log power of a step directly from the raw configuration, around their mean."""

    def __init__(self):
        self._process = Residuals(RAW)

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`. A weight only says whether a row is used."""
        logs = log_targets(data)
        states = []
        for number, row in enumerate(weights):
            used = row > 0
            if used.sum() < 4:
                states.append(not_identified(f"{used.sum()} training rows"))
                continue
            centres = {name: float(values[used].mean()) for name, values in logs.items()}
            targets = {name: values - centres[name] for name, values in logs.items()}
            before = warm[number].get("process") if warm else None
            process = self._process.fit(data, used, targets, int(context.options["seed"]), before)
            states.append(fitted_state(process) | {"centres": centres, "process": process})
        return states

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`."""
        if "process" not in state:
            return [nothing(data, state["reason"])]
        means, known = self._process.predict(state["process"], data)
        time, power = (np.exp(state["centres"][name] + means[name]) for name in ("time", "power"))
        return [
            Prediction(
                time, time * power, known, None if known.all() else "a category that was not trained on"
            )
        ]


def fitted_state(process: dict) -> State:
    """The common part of a state. A process has no parameter with a physical meaning."""
    hyper = {name: one["hyper"] for name, one in process["targets"].items()}
    return {
        "identified": True,
        "reason": None,
        "parameters": {},
        "diagnostics": {"log_hyper_parameters": hyper},
    }
