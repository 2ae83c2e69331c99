"""Confidence intervals of parameters, by a cluster bootstrap over families and by profile likelihood."""

from typing import Any

import numpy as np

from jouleline.model.base import Context, Model
from jouleline.model.features import Data
from jouleline.model.laws.paper import Paper
from jouleline.model.roofline import law, lsq
from jouleline.model.roofline.fit import Roofline
from jouleline.model.roofline.problem import Problem

KEPT = 100
"""The number of draws whose parameters a shipped roofline keeps. From them, choices between configurations know its
uncertainty."""

_AT_ONCE = 2**22
"""The number of weights of draws that are fitted at once. It bounds the memory for a table of many rows."""

PROFILED = ("compute_memory_exponent", "static_power_w")


def family_draws(families: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Weights [draws, R]. Each draw takes as many families as exist, with replacement, and all rows of each."""
    codes, index = np.unique(families, return_inverse=True)
    rng = np.random.default_rng([seed, 1])
    counts = rng.multinomial(len(codes), np.full(len(codes), 1 / len(codes)), size=draws)
    return counts[:, index].astype(float)


def add_intervals(model: Model, data: Data, record: dict[str, Any], context: Context, draws: int) -> None:
    """Refit `draws` resamples of the families. This sets lo95 and hi95 of every identified parameter of a fold
    record."""
    if len(np.unique(data.families)) < 3 or not record["identified"] or not record["parameters"]:
        return
    model = getattr(model, "law", model)  # in a hybrid, the law has the parameters
    weights = family_draws(data.families, draws, int(context.options["seed"]))
    state = {**record["state"], "identified": True, "reason": None}
    values, kept = _refit(model, data, weights, context, state)
    if kept:
        record["draws"] = kept
    for name, entry in record["parameters"].items():
        found = values.get(name)
        if entry["identified"] and found is not None and len(found) >= draws // 2:
            entry["lo95"], entry["hi95"] = (float(value) for value in np.quantile(found, [0.025, 0.975]))
    record["diagnostics"]["bootstrap"] = {
        "draws": draws,
        "by": "family",
        "families": len(np.unique(data.families)),
    }
    if "phi" in values:
        low, high = (float(value) for value in np.quantile(values["phi"], [0.025, 0.975]))
        record["diagnostics"]["static_share_lo95"], record["diagnostics"]["static_share_hi95"] = low, high


def _refit(
    model: Model, data: Data, weights: np.ndarray, context: Context, state: dict
) -> tuple[dict[str, np.ndarray], list[dict]]:
    """(parameter -> its value in each draw, the slots of the first KEPT draws of a roofline)."""
    if isinstance(model, Roofline) and "vector" in state:
        blocks = np.array_split(weights, -(-weights.size // _AT_ONCE))
        found, kept = zip(*(_refit_roofline(model, data, block, context, state) for block in blocks))
        values = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        return values, [slots for one in kept for slots in one][:KEPT]
    if isinstance(model, Paper):  # the modelled mode would refit a roofline in every draw
        model, state = Paper(("parametric",)), None
    values: dict[str, list[float]] = {}
    for fitted in model.fit(data, weights, context, warm=[state] * len(weights) if state else None):
        for name, entry in fitted["parameters"].items():
            if entry["value"] is not None:
                values.setdefault(name, []).append(entry["value"])
    return {name: np.array(found) for name, found in values.items()}, []


def _refit_roofline(model: Roofline, data: Data, weights: np.ndarray, context: Context, state: dict):
    problem = Problem(data, weights, context, model.options(context), guess_weights=np.ones((1, len(data))))
    problem.spread[:] = state["spread"]
    vector = np.array(state["vector"])
    starts = np.broadcast_to(vector, (len(weights), 1, len(vector)))
    solution = problem.solve(starts, np.full(len(weights), state["noise"]))
    index = np.arange(1)
    values = {}
    for name, slot in problem.structure.slots.items():
        if not slot.active:
            continue
        by_group = problem.group_values(slot, solution.theta, np.zeros(len(weights), dtype=int))
        for code, label in enumerate(slot.labels):
            key = name if len(slot.labels) == 1 else f"{name}[{label}]"
            values[key] = law.natural(name, by_group[:, code])
    with np.errstate(over="ignore", invalid="ignore"):
        shares = [
            np.median(law.static_share(problem.values(theta[None], index), problem.rows))
            for theta in solution.theta
        ]
    kept = [problem.slots(k, theta) for k, theta in enumerate(solution.theta[:KEPT])]
    return values | {"phi": np.array(shares)}, kept


def add_profiles(model: Model, data: Data, record: dict[str, Any], context: Context) -> None:
    """Profile likelihood of p and P_s: refit with the parameter fixed on a grid. The likelihood ratio gives the 95 %
    interval.

    diagnostics.profiles keeps them as {name: {value: [...], delta_cost: [...], static_share: [...], lo95, hi95}}. Costs
    are in units of the residual variance, so the interval ends where the cost is 1.92 above the best. The profile of
    phi is phi along the profile of P_s. An end that is not reached is null.
    """
    model = getattr(model, "law", model)
    if not isinstance(model, Roofline) or "vector" not in record["state"] or not record["identified"]:
        return
    problem = Problem(data, np.ones((1, len(data))), context, model.options(context))
    problem.spread[:] = record["state"]["spread"]
    profiles = {}
    for name in PROFILED:
        slot = problem.structure.slots[name]
        if len(slot.loads) == 1:  # else no single column holds the parameter
            profiles[name] = _profile(problem, slot, record["state"])
    record["diagnostics"]["profiles"] = profiles


def _profile(problem: Problem, slot, state: dict[str, Any]) -> dict[str, Any]:
    """The parameter over +-4 of its standard errors (at most +-2.5 of its unbounded value), with the others
    refitted."""
    best = np.array(state["vector"])[next(iter(slot.loads))]
    probe = 0.02
    _, near, _ = _along(problem, slot, state, best + probe * np.array([-1, 0, 1]))
    error = probe / np.sqrt(max(near[0] + near[2] - 2 * near[1], 1e-6))
    grid = best + min(4 * error, 2.5) * np.linspace(-1, 1, 25)
    value, delta, share = _along(problem, slot, state, grid)
    delta = delta - delta.min()
    inside = np.flatnonzero(delta <= 1.92)
    return {
        "value": value.tolist(),
        "delta_cost": delta.tolist(),
        "static_share": share.tolist(),
        "lo95": float(value[inside[0]]) if inside[0] > 0 else None,
        "hi95": float(value[inside[-1]]) if inside[-1] < len(grid) - 1 else None,
    }


def _along(problem: Problem, slot, state: dict[str, Any], grid: np.ndarray):
    """(natural value, cost in units of the residual variance, median static share) [points], with the others
    refitted."""
    best, noise, (column,) = np.array(state["vector"]), state["noise"], slot.loads
    prior_sd = problem.prior_sd[0] / noise
    free = np.delete(np.arange(len(best)), column)

    def full(theta, index):
        whole = np.empty((len(theta), len(best)))
        whole[:, free], whole[:, column] = theta, grid[index]
        return whole

    def evaluate(theta, index):
        residuals, jacobian = problem.evaluate(full(theta, index), np.zeros(len(theta), dtype=int))
        return residuals, jacobian.without(column)

    points = len(grid)
    weights = np.repeat(problem.row_weights[:1], points, axis=0)
    starts = np.broadcast_to(best[free], (points, 1, len(free)))
    priors = np.broadcast_to(prior_sd[free], (points, len(free)))
    solution = lsq.minimise(evaluate, weights, priors, starts, polish=False)
    cost = (solution.cost + 0.5 * (grid / prior_sd[column]) ** 2) / noise**2
    index = np.zeros(points, dtype=int)
    with np.errstate(over="ignore", invalid="ignore"):
        share = law.static_share(problem.values(full(solution.theta, np.arange(points)), index), problem.rows)
    offset = float(problem.centres[slot.name][0, 0])
    return law.natural(slot.name, grid + offset), cost, np.median(share, axis=1)
