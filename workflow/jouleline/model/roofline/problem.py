"""The residuals of several weightings of one table under the roofline law, with their Jacobians and optima."""

from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from jouleline.model.base import Context, State
from jouleline.model.features import Data
from jouleline.model.roofline import hierarchy, law, lsq
from jouleline.model.roofline.identify import HUBER_DELTA, diagnose
from jouleline.model.roofline.jacobian import Block, Jacobian, cells
from jouleline.model.roofline.structure import ABLATIONS, Options, Slot, Structure, build

ACCEPTED_SHARE = 0.1
"""A fit is accepted when this share of its starts reach the best cost."""

_FEW = 200
"""The number of rows on which the many starts are improved. Only the lowest ends of these are continued on all rows."""

_FEWEST = 8
"""The number of rows of every cell that are always among them."""

_CANDIDATES = 4
"""The number of different ends on few rows that are continued on all rows."""


class Problem:
    """The residuals of several weightings of one table (K problems over R rows), and their Jacobians."""

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
        self.basis = weights if guess_weights is None else np.broadcast_to(guess_weights, weights.shape)
        guessed = [name for name, slot in self.structure.slots.items() if not slot.known.all()]
        self.guesses = {name: _guess(name, data, self.basis) for name in guessed}
        self.centres = {name: self.centre(slot) for name, slot in self.structure.slots.items()}
        order, self.cells = cells(
            [s.group for s in self.structure.slots.values() if len(s.labels) > 1]
            or [np.zeros(len(data), dtype=int)]
        )
        self._keep(order)
        # How much devices differ, in units of the priors of their deviations, [K].
        self.spread = np.ones(len(weights))

    def _keep(self, rows: np.ndarray) -> None:
        """Keep only the given rows (indices), in their order."""
        slots = {name: replace(slot, group=slot.group[rows]) for name, slot in self.structure.slots.items()}
        self.structure = replace(self.structure, slots=slots)
        self.rows = {name: values[rows] for name, values in self.rows.items()}
        self.weights = self.weights[:, rows]
        self.families, self.run_ids = self.families[rows], self.run_ids[rows]
        self.time, self.energy = self.time[rows], self.energy[rows]

    @cached_property
    def row_weights(self) -> np.ndarray:
        """The weight of every residual, [K, M]."""
        return np.hstack([self.weights, self.weights]) if self.joint else self.weights

    @property
    def prior_sd(self) -> np.ndarray:
        """The prior sd of every column, [K, P]."""
        return self.structure.sds(self.spread)

    def learn_spread(self, theta: np.ndarray, noise: np.ndarray) -> None:
        """Learn from the data around `theta` [K, P] how much devices differ. `noise` is as in `solve`."""
        if not self.structure.deviations.any():
            return
        for k, at in enumerate(theta):
            residuals, jacobian = self.evaluate(at[None], np.array([k]))
            said = lsq.normal_equations(residuals, jacobian, self.row_weights[[k]])
            normal, gradient = (one[0] / noise[k] ** 2 for one in said)
            self.spread[k] = hierarchy.factor(
                normal, gradient, at, self.structure.prior_sd, self.structure.deviations
            )

    def few(self, most: int, seed: int) -> "Problem":
        """The same problems on about `most` rows. The rows are drawn from every cell and weighted for those that they
        represent.

        A cell may have few rows in one of the problems. Then all of these are kept, because the problem knows no others
        of that device.
        """
        if len(self.time) <= most:
            return self
        drawn, bounds, columns = [], [0], []
        for cell in self.cells:
            rows = cell.start + np.random.default_rng([seed, cell.start]).permutation(cell.stop - cell.start)
            some = np.zeros(len(rows), dtype=bool)
            some[: max(_FEWEST, round(most * len(rows) / len(self.time)))] = True
            for row in np.unique(self.weights[:, rows] > 0, axis=0):
                some[np.flatnonzero(row)[:_FEWEST]] = True
            kept, all_of = self.weights[:, rows[some]], self.weights[:, rows].sum(axis=1)
            columns.append(kept * (all_of / np.maximum(kept.sum(axis=1), 1e-300))[:, None])
            drawn.append(rows[some])
            bounds.append(bounds[-1] + len(drawn[-1]))
        part = copy(self)
        part.__dict__.pop("row_weights", None)
        part._keep(np.concatenate(drawn))
        part.weights, part.cells = np.hstack(columns), [slice(*pair) for pair in pairwise(bounds)]
        return part

    def centre(self, slot: Slot) -> np.ndarray:
        """The slot's prior centre of each group, [K or 1, groups]."""
        if np.isfinite(slot.centres).all():
            return slot.centres[None]
        ratio = np.nan_to_num(slot.scales - self.usual(slot)[:, None])
        return np.where(np.isnan(slot.centres), self.guesses[slot.name][:, None] + ratio, slot.centres)

    def usual(self, slot: Slot) -> np.ndarray:
        """The scale of a slot's guess: the mean over the training rows that have one. [K]"""
        scales = slot.scales[slot.group]
        has = np.isfinite(scales)
        return (self.basis[:, has] @ scales[has]) / np.maximum(self.basis[:, has].sum(axis=1), 1e-300)

    def group_values(self, slot: Slot, theta: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The slot's unbounded value in each group, [B, groups], or [1, groups] where theta does not affect it."""
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

    def evaluate(self, theta: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, Jacobian]:
        """Residuals [B, M] in units of the Huber threshold, and their Jacobian."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            log_time, log_energy, d_time, d_energy = law.step(self.values(theta, index), self.rows)
        targets = [(log_time, self.time, d_time)] if self.joint else []
        targets.append((log_energy, self.energy, d_energy))
        residuals = np.hstack([(log - target) / HUBER_DELTA for log, target, _ in targets])
        blocks = []
        for number, (_, _, derivatives) in enumerate(targets):
            felt = [name for name in derivatives if self.structure.slots[name].loads]
            for cell in self.cells:
                blocks.append(self._block(derivatives, felt, cell, number * len(self.time), len(theta)))
        return residuals, Jacobian(blocks)

    def _block(self, derivatives: dict, felt: list[str], cell: slice, offset: int, count: int) -> Block:
        slopes = np.empty((count, len(felt), cell.stop - cell.start))
        loads = np.zeros((len(felt), len(self.structure.names)))
        for place, name in enumerate(felt):
            slot, derivative = self.structure.slots[name], derivatives[name]
            slopes[:, place] = derivative[..., cell] if derivative.shape[-1] > 1 else derivative
            code = slot.group[cell.start]
            for column, share in slot.loads.items():
                loads[place, column] = share[code]
        slopes /= HUBER_DELTA
        return Block(slice(cell.start + offset, cell.stop + offset), slopes, loads)

    def search(self, starts: np.ndarray, seed: int) -> lsq.Solution:
        """Optima from many starts [S, P], without regard to the noise. They are found on few rows. The best of them
        continue on all."""
        few = self.few(_FEW, seed)
        prior_sd = self.prior_sd
        many = np.broadcast_to(starts, (len(self.weights), *starts.shape))
        theta, cost = lsq.descend(few.evaluate, few.row_weights, prior_sd, many, tolerance=1e-6)
        theta, share = lsq.lowest_of_each(theta, cost, 1 if few is self else _CANDIDATES)
        if few is not self:
            theta, cost = lsq.descend(self.evaluate, self.row_weights, prior_sd, theta, tolerance=1e-6)
            share = share * lsq.reach(cost, cost.min(axis=1)[:, None])
            theta = theta[np.arange(len(theta)), np.argmin(cost, axis=1)][:, None]
        return lsq.Solution(theta[:, 0], np.full(len(theta), np.nan), share.sum(axis=1), len(starts))

    def solve(
        self, starts: np.ndarray, noise: np.ndarray, polish: bool = False, tolerance: float = 1e-9
    ) -> lsq.Solution:
        """Optima from starts [K, S, P]. The priors weigh as they do against residuals of `noise` [K] (in Huber
        thresholds)."""
        prior_sd = self.prior_sd / noise[:, None]
        return lsq.minimise(self.evaluate, self.row_weights, prior_sd, starts, polish, tolerance=tolerance)

    def noise(self, theta: np.ndarray) -> np.ndarray:
        """The divisor of the cost of the training residuals, as a scale [K].

        It comes from the robust residual scale s in Huber thresholds (at least 0.1, which is 0.5 %). Beyond the
        threshold the cost grows linearly. Its natural unit there is s instead of s^2, so the divisor's scale is
        sqrt(s).
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
            "spread": float(self.spread[k]),
            "slots": self.slots(k, theta),
            "identified": True,
            "reason": None,
        }
        state["diagnostics"] = {"cost": float(solution.cost[k])}
        if not checked:
            return state | {"parameters": {}}
        state["unseen"] = hierarchy.unseen(self, k, theta)
        return state | self._judged(k, solution, state)

    def slots(self, k: int, theta: np.ndarray) -> dict[str, dict]:
        """The slots of `theta` [P] under the k-th weighting, as JSON."""
        slots = self.structure.slots.items()
        return {name: self._slot_entry(k, name, slot, theta) for name, slot in slots}

    def _slot_entry(self, k: int, name: str, slot: Slot, theta: np.ndarray) -> dict[str, Any]:
        """A fitted slot: its value in every group that was trained on, and what the values of other groups derive from.

        `common` is the mean ratio to the centre over the rows of known groups. `base` is the mean of the value after
        the scale of the data sheets is taken out. Each is None where no row was trained on that could tell it.
        """
        values = self.group_values(slot, theta[None], np.array([k]))[0]
        codes = range(len(slot.labels))
        rows = np.array([self.weights[k, slot.group == code].sum() for code in codes])
        rows *= [self._felt(name, k, slot.group == code) for code in codes]
        common, base = (_mean(values - what, rows) for what in (slot.centres, slot.scales))
        precisions = {slot.precisions[code] for code in codes if rows[code]}
        groups, ratios, trained = {}, {}, {}
        for code, label in enumerate(slot.labels):
            between = slot.between[code]
            if rows[code]:
                groups[label] = float(values[code])
            if rows[code] and between:
                trained.setdefault(between, []).append(float(values[code]))
                ratios |= {between: float(values[code] - slot.centres[code])} if slot.known[code] else {}
        # A number of nodes that was neither calibrated nor trained on is taken to be like the trained ones.
        elsewhere = {label: float(np.mean(found)) for label, found in trained.items()}
        return {
            "fitted": slot.active,
            "common": common,
            "base": base,
            "groups": elsewhere | groups,
            "ratios": ratios,
            "precisions": sorted(precisions),
        }

    def _felt(self, name: str, k: int, own: np.ndarray) -> bool:
        """For the slots of communication: whether any training row of the group communicates."""
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
    """Weighted mean of the finite values. None where these have no weight."""
    weights = np.where(np.isfinite(values), weights, 0.0)
    total = weights.sum()
    return float(np.nan_to_num(values) @ weights / total) if total else None


_RAMP_S = 1e-5
"""A kernel starts and ends within about 10 us. So a launch that computes for as long half fills its device."""

_HOST_S = {"host_fixed_s": 3e-3, "host_layer_s": 5e-4}
"""A layer starts some 60 kernels in about 10 us each, and a step starts some hundred more. This time does not depend on
the size of the runs. If it were taken as a share of the time of large runs, it would be far too long for small ones."""


def _guess(name: str, data: Data, weights: np.ndarray) -> np.ndarray:
    """The order of magnitude of a slot, log, [K], from physics or from the training rows only."""
    time, energy = data.step_time_s, data.step_energy_j / data.devices
    sent, calls = np.maximum(data.proxies["comm_byte"], 1), np.maximum(data.proxies["comm_calls"], 1e-9)
    rates = {
        "peak_flops": (data.flop / time, 1.0, np.max),
        "memory_bandwidth": (data.byte / time, 1.0, np.max),
        "half_saturation_flop": (data.flop / time, _RAMP_S, np.max),
        "collective_latency_s": (time / np.maximum(calls, 1), 0.02, np.median),
        "link_bandwidth": (sent / time, 3.0, np.max),
        "fixed_time_s": (time * data.steps, 0.02, np.median),
        "static_power_w": (energy / time, 0.5, np.median),
        "node_power_w": (energy / time, 0.2, np.median),
        "compute_energy_j_per_flop": (energy / data.flop, 0.3, np.median),
        "memory_energy_j_per_byte": (energy / data.byte, 0.2, np.median),
        "link_energy_j_per_byte": (energy / sent, 0.01, np.min),
    }
    if name in _HOST_S:
        return np.full(len(weights), np.log(_HOST_S[name]))
    values, factor, reduce = rates[name]
    return np.array([np.log(factor * reduce(values[row > 0])) if (row > 0).any() else 0.0 for row in weights])
