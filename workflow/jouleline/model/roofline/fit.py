"""Fit the roofline law to time and energy together, and predict with it."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from jouleline.model.base import Context, Prediction, State, not_identified, nothing
from jouleline.model.features import Data
from jouleline.model.roofline import law, lsq
from jouleline.model.roofline.law import TIME_SLOTS
from jouleline.model.roofline.problem import Problem
from jouleline.model.roofline.structure import ABLATIONS, UNKNOWN_SD, Options, Slot, Structure, build


class Roofline:
    """The structural law (see `jouleline.model.roofline.law`). `ablations` switch terms off."""

    def __init__(self, ablations: tuple[str, ...] = (), efficiency_mode: str | None = "modelled"):
        self.ablations = ablations
        self.efficiency_mode = efficiency_mode

    def options(self, context: Context) -> Options:
        given = context.options
        return Options(
            ablations=self.ablations,
            calibration_priors=given.get("calibration_priors", True) and "no_priors" not in self.ablations,
            fixed_time=bool(given.get("fixed_time", False)),
            starts=int(given.get("starts", 64)),
            seed=int(given.get("seed", 0)),
        )

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`. Without `warm` it starts from Sobol points, else from each state's optimum and a few points
        near it."""
        options = self.options(context)
        from_states = [(s.get("vector"), s.get("noise")) for s in warm] if warm is not None else None
        key = ("fits", options, context.machines, weights.shape, weights.tobytes(), repr(from_states))
        if (
            key not in data.memo
        ):  # the hybrid and the paper's law begin with the roofline's fit of the same rows
            data.memo[key] = self._fit(data, weights, context, warm)
        return deepcopy(data.memo[key])

    def _fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None
    ) -> list[State]:
        options = self.options(context)
        problem = Problem(data, weights, context, options)
        size = len(problem.structure.names)
        rows = (weights > 0).sum(axis=1)
        if warm is None:
            starts = lsq.sobol_starts(options.starts, size, problem.structure.spread, options.seed)
            first = problem.search(starts, options.seed)
            noise = problem.noise(first.theta)
            problem.learn_spread(first.theta, noise)
            second = problem.solve(first.theta[:, None], noise, polish=True)
            solution = replace(second, agreeing=first.agreeing, starts=first.starts)
        else:
            starts = np.array([state.get("vector", np.zeros(size)) for state in warm])[:, None]
            noise = np.array([state.get("noise", 1.0) for state in warm])
            problem.learn_spread(starts[:, 0], noise)
            solution = problem.solve(starts, noise)
        needed = _rows_needed(problem.structure)
        states = []
        for k in range(len(weights)):
            if rows[k] < needed:
                states.append(not_identified(f"{rows[k]} training rows for {size} parameters"))
                continue
            states.append(problem.state(k, solution, float(noise[k]), checked=warm is None))
        return states

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`. Rows that need a constant which nobody measured are marked as not identified."""
        if "slots" not in state:
            return [nothing(data, state["reason"], efficiency_mode=self.efficiency_mode)]
        values, timed, known = row_values(state, data, context, self.options(context))
        rows = data.memo.setdefault(("inputs", self.ablations), None) or law.inputs(
            data, "paper_proxies" in self.ablations
        )
        data.memo["inputs", self.ablations] = rows
        with np.errstate(over="ignore", invalid="ignore"):
            log_time, log_energy, _, _ = law.step(values, rows)
        time = np.where(timed, np.exp(log_time), np.nan)
        if "energy_only" in self.ablations:
            time = np.full(len(data), np.nan)
        reason = (
            None if known.all() else "a device, precision or link that was neither trained on nor calibrated"
        )
        ok = known & bool(state["identified"])
        energy = np.where(known, np.exp(log_energy), np.nan)
        return [Prediction(time, energy, ok, reason or state["reason"], self.efficiency_mode)]

    def parts(self, state: State, data: Data, context: Context) -> dict[str, np.ndarray]:
        """Where the energy of each row goes (see `law.energy_parts`), as shares [R]. NaN where it is not known."""
        values, _, known = row_values(state, data, context, self.options(context))
        rows = law.inputs(data, "paper_proxies" in self.ablations)
        with np.errstate(over="ignore", invalid="ignore"):
            shares = law.energy_parts(values, rows)
        return {name: np.where(known, share, np.nan) for name, share in shares.items()}


def rows_needed(data: Data, context: Context) -> int:
    """How many runs a fit of the law to such rows needs. Each run gives two numbers, and each unknown needs one."""
    return _rows_needed(build(data, context.machines, Roofline().options(context)))


def _rows_needed(structure: Structure) -> int:
    return -(-max(int((structure.prior_sd >= UNKNOWN_SD).sum()), 8) // 2)


def row_values(
    state: State, data: Data, context: Context, options: Options
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Three arrays [R]: the unbounded slot values of the rows of `data` under a fitted state, which rows have all that
    time needs, and which of them also have all that energy needs."""
    fitted = frozenset(name for name, entry in state["slots"].items() if entry["fitted"])
    structure = build(data, context.machines, options, fitted)
    timed, known = np.ones((2, len(data)), dtype=bool)
    values = {}
    communicates = data.proxies["comm_calls"] > 0
    for name, slot in structure.slots.items():
        entry = state["slots"][name]
        per_group = [_group_value(entry, slot, code) for code in range(len(slot.labels))]
        value = np.array(per_group)[slot.group]
        missing = np.isnan(value)
        if name in ABLATIONS["no_communication"]:
            missing &= communicates
            value = np.where(communicates, value, _silent(name))
        known &= ~missing
        if name in TIME_SLOTS:
            timed &= ~missing
        values[name] = value
    return values, timed, known


def _group_value(entry: dict[str, Any], slot: Slot, code: int) -> float:
    """The fitted value of a group.

    A group that was not trained on gets its calibration times a ratio: that of the trained groups to their
    calibrations. For links `between` nodes it is the ratio of those links. Without such a ratio, the data sheets give
    the group's value relative to the trained groups. The value is NaN where nothing is known of the group, for example
    a precision that was neither measured nor trained on. Data sheets do not tell how much it reaches relative to
    another precision (fp32 may run as TF32, eight times as fast).
    """
    label, centre, scale = slot.labels[code], slot.centres[code], slot.scales[code]
    if not (slot.active and entry["fitted"]):  # switched off here, or without effect in training
        return centre
    if label in entry["groups"]:
        return entry["groups"][label]
    if not slot.measured[code] and slot.precisions[code] not in entry["precisions"]:
        return np.nan
    ratio = entry["ratios"].get(slot.between[code], entry["common"])
    if np.isfinite(centre) and ratio is not None:
        return centre + ratio
    return np.nan if entry["base"] is None else entry["base"] + scale


def _silent(name: str) -> float:
    return 700.0 if name == "link_bandwidth" else 0.0 if name == "overlap" else -700.0
