"""What the data say about each parameter of a roofline fit, and what they cannot say."""

from typing import Any

import numpy as np

from jouleline.model.base import parameter
from jouleline.model.roofline import law, lsq
from jouleline.model.roofline.law import SLOTS

CORRELATED = 0.95
"""Pairs of parameters with a larger correlation than this are named."""

HUBER_DELTA = 0.05
"""Log residuals beyond 5 % count linearly."""

MOST_LOG_SD = 0.4
"""A positive parameter is not quoted if its 95 % interval is wider than a factor of 2.2 to either side."""


def diagnose(problem, k: int, theta: np.ndarray, state: dict[str, Any]) -> dict[str, dict]:
    """Parameters with intervals, and the diagnostics of the k-th fit of a `roofline_fit.Problem`.

    The covariance is A^-1 (c H + Q) A^-1 with A = H + Q at the optimum. H is the Huber-weighted normal matrix of the
    data in units of their noise. Q is the precision of the prior. c is the number of rows per family (rows of one
    family are not independent) times the correction for the degrees of freedom. The first term is noise. The second is
    the pull of the prior towards its centre.
    """
    residuals, jacobian = problem.evaluate(theta[None], np.array([k]))
    weights = problem.row_weights[k]
    normal, _ = lsq.normal_equations(residuals, jacobian, weights[None])
    jacobian = jacobian.dense()
    used = weights > 0
    rows = problem.weights[k] > 0
    clustering = rows.sum() / max(len(set(problem.families[rows].tolist())), 1)
    clustering *= used.sum() / max(
        used.sum() - len(theta), 1
    )  # the scale of the residuals does not know the degrees of freedom
    normal = normal[0] / state["noise"] ** 2
    prior_sd = problem.prior_sd[k]
    prior = np.diag(prior_sd**-2.0)
    inverse = np.linalg.inv(normal + prior)
    covariance = inverse @ (clustering * normal + prior) @ inverse
    spectrum = np.linalg.eigvalsh(np.outer(prior_sd, prior_sd) * (normal + prior))
    data_singular = np.linalg.svd(jacobian[0][:, used], compute_uv=False)
    half = len(problem.time)
    log_error = residuals[0] * HUBER_DELTA
    diagnostics = {
        "condition_number": float(np.sqrt(spectrum[-1] / spectrum[0])),
        "condition_number_data": float(data_singular[0] / max(data_singular[-1], 1e-300)),
        "singular_values": [float(value) for value in data_singular],
        "correlated": _correlated(covariance, problem.structure.names),
        "static_share": _static_share(problem, k, theta, rows),
        "train_log_rmse_energy": float(np.sqrt(np.mean(log_error[-half:][rows] ** 2))),
    }
    diagnostics["influential"] = _influential(
        problem, residuals[0], jacobian[0] / state["noise"], weights, inverse
    )
    if problem.joint:
        diagnostics["train_log_rmse_time"] = float(np.sqrt(np.mean(log_error[:half][rows] ** 2)))
    return {"parameters": _parameters(problem, k, state, covariance), "diagnostics": diagnostics}


def _correlated(covariance: np.ndarray, names: list[str]) -> list[list]:
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    pairs = np.argwhere(np.triu(np.abs(correlation) > CORRELATED, 1))
    return [[names[i], names[j], float(correlation[i, j])] for i, j in pairs]


def _influential(problem, residuals, jacobian, weights, inverse, most: int = 5) -> list[list]:
    """The runs that influence the fit most: [run_id, leverage, log residual of energy], by leverage times residual.

    Leverage is the share of a run's own residuals that the fit removes. The larger of time and energy counts.
    """
    leverage = np.einsum("pm,pq,qm->m", jacobian, inverse, jacobian) * weights
    pull = (leverage * np.abs(residuals)).reshape(-1, len(problem.run_ids)).max(axis=0)
    leverage = leverage.reshape(-1, len(problem.run_ids)).max(axis=0)
    energy = residuals[-len(problem.run_ids) :] * HUBER_DELTA
    rows = np.argsort(-pull)[:most]
    return [
        [str(problem.run_ids[row]), float(leverage[row]), float(energy[row])] for row in rows if pull[row] > 0
    ]


def _static_share(problem, k: int, theta: np.ndarray, rows: np.ndarray) -> float:
    """phi: the median share of static energy over the training rows."""
    with np.errstate(over="ignore", invalid="ignore"):
        share = law.static_share(problem.values(theta[None], np.array([k])), problem.rows)
    return float(np.median(share[0, rows]))


def _parameters(problem, k: int, state: dict[str, Any], covariance: np.ndarray) -> dict[str, dict]:
    entries = {}
    for name, slot in problem.structure.slots.items():
        if not slot.active:
            continue
        unit, transform = SLOTS[name]
        groups = state["slots"][name]["groups"]
        for code, label in enumerate(slot.labels):
            share = np.zeros(len(covariance))
            share[list(slot.loads)] = [load[code] for load in slot.loads.values()]
            sd = float(np.sqrt(share @ covariance @ share))
            prior_sd = float(np.sqrt(((share * problem.prior_sd[k]) ** 2).sum()))
            known = label in groups and sd < 0.5 * prior_sd and (transform != "log" or sd < MOST_LOG_SD)
            key = name if len(slot.labels) == 1 else f"{name}[{label}]"
            entries[key] = _entry(name, groups.get(label), unit, sd, known)
    return entries


def _entry(name: str, value: float | None, unit: str, sd: float, known: bool) -> dict:
    transform = SLOTS[name][1]
    if value is None or transform in {"log", "linear"}:
        number = None if value is None else law.natural(name, value)
        return parameter(number, unit, sd, known, log=transform == "log")
    entry = parameter(law.natural(name, value), unit, None, known)
    if entry["identified"]:
        low, high = (float(law.natural(name, value + sign * 1.96 * sd)) for sign in (-1, 1))
        entry |= {"lo95": low, "hi95": high}
    return entry
