"""Fitting the roofline law to time and energy together, and predicting with it."""

from dataclasses import replace
from typing import Any

import numpy as np

from jouleline.model.base import Context, Prediction, State, not_identified, nothing
from jouleline.model.features import Data
from jouleline.model.roofline import law, lsq
from jouleline.model.roofline.identify import HUBER_DELTA, diagnose
from jouleline.model.roofline.law import SLOTS, TIME_SLOTS
from jouleline.model.roofline.structure import ABLATIONS, UNKNOWN_SD, Options, Slot, Structure, build

ACCEPTED_SHARE = 0.1
"""A fit stands when this share of its starts reach the best cost."""


class Roofline:
    """The structural law (see `jouleline.model.roofline.law`); `ablations` switch terms off."""

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
        """See `Model.fit`; without `warm`, from Sobol starts, else from each state's optimum and a few near it."""
        options = self.options(context)
        problem = Problem(data, weights, context, options)
        size = len(problem.structure.names)
        rows = (weights > 0).sum(axis=1)
        if warm is None:
            starts = lsq.sobol_starts(options.starts, size, problem.structure.spread, options.seed)
            starts = np.broadcast_to(starts, (len(weights), *starts.shape))
            first = problem.solve(starts, np.ones(len(weights)), tolerance=1e-6)
            noise = problem.noise(first.theta)
            second = problem.solve(first.theta[:, None], noise, polish=True)
            solution = replace(second, agreeing=first.agreeing, starts=first.starts)
        else:
            starts = np.array([state.get("vector", np.zeros(size)) for state in warm])[:, None]
            noise = np.array([state.get("noise", 1.0) for state in warm])
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
        """See `Model.predict`; rows that need a constant nobody measured are marked not identified."""
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
        """Where the energy of each row goes (see `law.energy_parts`), shares [R]; NaN where it is not known."""
        values, _, known = row_values(state, data, context, self.options(context))
        rows = law.inputs(data, "paper_proxies" in self.ablations)
        with np.errstate(over="ignore", invalid="ignore"):
            shares = law.energy_parts(values, rows)
        return {name: np.where(known, share, np.nan) for name, share in shares.items()}


def rows_needed(data: Data, context: Context) -> int:
    """How many runs the law asks for to be fitted to such rows: two numbers each, one for each unknown."""
    return _rows_needed(build(data, context.machines, Roofline().options(context)))


def _rows_needed(structure: Structure) -> int:
    return -(-max(int((structure.prior_sd >= UNKNOWN_SD).sum()), 8) // 2)


class Problem:
    """The residuals of several weightings of one table (K problems over R rows) and their Jacobians."""

    def __init__(
        self,
        data: Data,
        weights: np.ndarray,
        context: Context,
        options: Options,
        guess_weights: np.ndarray | None = None,
    ):
        self.structure: Structure = build(data, context.machines, options)
        self.weights = weights
        self.families = data.families
        self.run_ids = data.columns["run_id"]
        self.rows = law.inputs(data, "paper_proxies" in options.ablations)
        self.joint = "energy_only" not in options.ablations
        self.time, self.energy = np.log(data.step_time_s), np.log(data.step_energy_j)
        self.row_weights = np.hstack([weights, weights]) if self.joint else weights
        self.basis = basis = (
            weights if guess_weights is None else np.broadcast_to(guess_weights, weights.shape)
        )
        self.guesses = {name: _guess(name, data, basis) for name in SLOTS if SLOTS[name][1] == "log"}
        self.centres = {name: self.centre(slot) for name, slot in self.structure.slots.items()}

    def centre(self, slot: Slot) -> np.ndarray:
        """The slot's prior centre of each group, [K or 1, groups]."""
        if np.isfinite(slot.centres).all():
            return slot.centres[None]
        ratio = np.nan_to_num(slot.scales - self.usual(slot)[:, None])
        return np.where(np.isnan(slot.centres), self.guesses[slot.name][:, None] + ratio, slot.centres)

    def usual(self, slot: Slot) -> np.ndarray:
        """The scale that the guess of a slot stands for: the mean over training rows that have one. [K]"""
        scales = slot.scales[slot.group]
        has = np.isfinite(scales)
        return (self.basis[:, has] @ scales[has]) / np.maximum(self.basis[:, has].sum(axis=1), 1e-300)

    def group_values(self, slot: Slot, theta: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The slot's unbounded value in each group, [B, groups], or [1, groups] where theta has no part in it."""
        centre = self.centres[slot.name]
        value = centre[index] if len(centre) > 1 else centre
        for column, share in slot.loads.items():
            value = value + theta[:, column, None] * share
        return value

    def values(self, theta: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        """Every slot's unbounded value, [B or 1, R or 1]."""
        values = {}
        for name, slot in self.structure.slots.items():
            value = self.group_values(slot, theta, index)
            values[name] = value[:, slot.group] if len(slot.labels) > 1 else value
        return values

    def evaluate(self, theta: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals [B, M] and Jacobian [B, P, M] in units of the Huber threshold."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            log_time, log_energy, d_time, d_energy = law.step(self.values(theta, index), self.rows)
        count = len(self.time)
        width = 2 * count if self.joint else count
        residuals = np.empty((len(theta), width))
        jacobian = np.zeros((len(theta), theta.shape[1], width))
        residuals[:, -count:] = log_energy - self.energy
        parts = [(d_energy, slice(width - count, width))]
        if self.joint:
            residuals[:, :count] = log_time - self.time
            parts.append((d_time, slice(0, count)))
        for derivatives, part in parts:
            for name, derivative in derivatives.items():
                _scatter(jacobian, self.structure.slots[name], derivative, part)
        return residuals / HUBER_DELTA, jacobian / HUBER_DELTA

    def solve(
        self, starts: np.ndarray, noise: np.ndarray, polish: bool = False, tolerance: float = 1e-9
    ) -> lsq.Solution:
        """Optima from starts [K, S, P]; priors weigh as against residuals of `noise` [K] (in Huber thresholds)."""
        prior_sd = self.structure.prior_sd / noise[:, None]
        return lsq.minimise(self.evaluate, self.row_weights, prior_sd, starts, polish, tolerance=tolerance)

    def noise(self, theta: np.ndarray) -> np.ndarray:
        """What the cost of the training residuals has to be divided by, as a scale [K].

        The robust residual scale s in Huber thresholds (at least 0.1, that is 0.5 %); beyond the threshold the cost
        grows linearly, so its natural unit is s instead of s^2, and the scale is sqrt(s).
        """
        residuals, _ = self.evaluate(theta, np.arange(len(theta)))
        scales = [
            np.median(np.abs(r[w > 0])) if (w > 0).any() else 1.0 for r, w in zip(residuals, self.row_weights)
        ]
        scale = np.clip(1.4826 * np.array(scales), 0.1, 25.0)
        return np.where(scale > 1, np.sqrt(scale), scale)

    def state(self, k: int, solution: lsq.Solution, noise: float, checked: bool) -> State:
        """The k-th fit as JSON."""
        theta = solution.theta[k]
        state: State = {
            "vector": theta.tolist(),
            "noise": noise,
            "slots": self.slots(k, theta),
            "identified": True,
            "reason": None,
        }
        state["diagnostics"] = {"cost": float(solution.cost[k])}
        if not checked:
            return state | {"parameters": {}}
        return state | self._judged(k, solution, state)

    def slots(self, k: int, theta: np.ndarray) -> dict[str, dict]:
        """The slots of `theta` [P] under the k-th weighting, as JSON."""
        slots = self.structure.slots.items()
        return {name: self._slot_entry(k, name, slot, theta) for name, slot in slots}

    def _slot_entry(self, k: int, name: str, slot: Slot, theta: np.ndarray) -> dict[str, Any]:
        """A fitted slot: its value in every group that was trained on, and what those of others derive from.

        `common` is the mean ratio to the centre over the rows of known groups, `base` the mean of what is left of the
        value when the data sheets' scale is taken out; None where no row was trained on that could tell.
        """
        values = self.group_values(slot, theta[None], np.array([k]))[0]
        codes = range(len(slot.labels))
        rows = np.array([self.weights[k, slot.group == code].sum() for code in codes])
        rows *= [self._felt(name, k, slot.group == code) for code in codes]
        common, base = (_mean(values - what, rows) for what in (slot.centres, slot.scales))
        groups, ratios, trained = {}, {}, {}
        for code, label in enumerate(slot.labels):
            between = slot.between[code]
            if rows[code]:
                groups[label] = float(values[code])
            if rows[code] and between:
                trained.setdefault(between, []).append(float(values[code]))
                ratios |= {between: float(values[code] - slot.centres[code])} if slot.known[code] else {}
        # A number of nodes that was neither calibrated nor trained on is taken to be like those that were trained on.
        elsewhere = {label: float(np.mean(found)) for label, found in trained.items()}
        return {
            "fitted": slot.active,
            "common": common,
            "base": base,
            "groups": elsewhere | groups,
            "ratios": ratios,
        }

    def _felt(self, name: str, k: int, own: np.ndarray) -> bool:
        """Whether any training row of the group communicates, for the slots of communication."""
        if name not in ABLATIONS["no_communication"]:
            return True
        return bool((self.rows["calls_tp"] + self.rows["calls_dp"])[own & (self.weights[k] > 0)].any())

    def _judged(self, k: int, solution: lsq.Solution, state: State) -> State:
        share = float(solution.agreeing[k])
        report = diagnose(self, k, solution.theta[k], state)
        accepted = share >= ACCEPTED_SHARE
        starts = {"starts": solution.starts, "agreeing_share": share, "accepted": accepted}
        reason = None if accepted else f"only {share:.0%} of {solution.starts} starts reached the best cost"
        if report["diagnostics"]["condition_number"] > 1e5:
            reason = reason or "the condition number of the fit is above 1e5"
        diagnostics = state["diagnostics"] | starts | report["diagnostics"]
        return {
            "parameters": report["parameters"],
            "diagnostics": diagnostics,
            "identified": reason is None,
            "reason": reason,
        }


def _mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    """Weighted mean of the finite values, None where they have no weight."""
    weights = np.where(np.isfinite(values), weights, 0.0)
    total = weights.sum()
    return float(np.nan_to_num(values) @ weights / total) if total else None


def _scatter(jacobian: np.ndarray, slot: Slot, derivative: np.ndarray, part: slice) -> None:
    for column, share in slot.loads.items():
        rows = share[slot.group]
        if (rows == 1).all():  # most columns, and quicker
            jacobian[:, column, part] += derivative
        else:
            felt = np.flatnonzero(rows)
            full = np.broadcast_to(derivative, (len(jacobian), len(rows)))
            jacobian[:, column, part][:, felt] += full[:, felt] * rows[felt]


def _guess(name: str, data: Data, weights: np.ndarray) -> np.ndarray:
    """An order of magnitude of a slot from the training rows alone, log, [K]."""
    time, energy = data.step_time_s, data.step_energy_j / data.devices
    sent, calls = np.maximum(data.proxies["comm_byte"], 1), np.maximum(data.proxies["comm_calls"], 1e-9)
    rates = {
        "peak_flops": (data.flop / time, 1.0, np.max),
        "memory_bandwidth": (data.byte / time, 1.0, np.max),
        "half_saturation_flop": (data.launch_flop, 0.3, np.median),
        "host_fixed_s": (time, 0.2, np.min),
        "host_layer_s": (time / data.columns["layers"], 0.1, np.min),
        "collective_latency_s": (time / np.maximum(calls, 1), 0.02, np.median),
        "link_bandwidth": (sent / time, 3.0, np.max),
        "fixed_time_s": (time * data.steps, 0.02, np.median),
        "static_power_w": (energy / time, 0.5, np.median),
        "node_power_w": (energy / time, 0.2, np.median),
        "compute_energy_j_per_flop": (energy / data.flop, 0.3, np.median),
        "memory_energy_j_per_byte": (energy / data.byte, 0.2, np.median),
        "link_energy_j_per_byte": (energy / sent, 0.01, np.min),
    }
    values, factor, reduce = rates[name]
    return np.array([np.log(factor * reduce(values[row > 0])) if (row > 0).any() else 0.0 for row in weights])


def row_values(
    state: State, data: Data, context: Context, options: Options
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Unbounded slot values of the rows of `data` under a fitted state; which rows have all that time needs; which have
    all that energy needs besides. [R]"""
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
    """The fitted value of a group; for one that was not trained on, its calibration times the ratio that the trained
    ones have to theirs (of links `between` nodes, that of those links); without such a ratio, what the data sheets say
    of it beside the trained ones. NaN where nothing is known of it."""
    label, centre, scale = slot.labels[code], slot.centres[code], slot.scales[code]
    if not (slot.active and entry["fitted"]):  # switched off here, or without effect in training
        return centre
    if label in entry["groups"]:
        return entry["groups"][label]
    ratio = entry["ratios"].get(slot.between[code], entry["common"])
    if np.isfinite(centre) and ratio is not None:
        return centre + ratio
    return np.nan if entry["base"] is None else entry["base"] + scale


def _silent(name: str) -> float:
    return 700.0 if name == "link_bandwidth" else 0.0 if name == "overlap" else -700.0
