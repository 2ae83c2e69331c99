"""The runs to measure first, and those to measure next. Both are one question, without and with measured runs.

This code never reads the measurement of a run that it may choose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from jouleline.model.base import Context, Prediction, State
from jouleline.model.features import Data
from jouleline.model.frugal import belief, greedy
from jouleline.model.laws.hybrid import Hybrid
from jouleline.model.roofline.fit import rows_needed
from jouleline.model.table.runs import MIN_ROWS, WORKLOAD

OPTIONS = {"starts": 16, "seed": 0, "calibration_priors": True, "fixed_time": False}
"""Options of the fit that chooses."""

_PLACEMENT = ("device", "device_count", "tensor_parallel", "zero_stage", "nodes")


@dataclass(frozen=True)
class Suggestion:
    """A run to measure.

    `candidate` is its index, and `reason` says why. `error_before` and `error_after` are the expected error of the
    targets (log energy; None before there is a fit). `energy_j` is the expected energy of the run (None: not known).
    `step_energy_j` is the prediction that the measurement will be compared with (None before a fit).
    """

    candidate: int
    reason: str
    energy_j: float | None
    step_energy_j: float | None
    error_before: float | None
    error_after: float | None


def measure_first(data: Data, rows: np.ndarray, count: int) -> np.ndarray:
    """Which of some rows (mask) to measure first when nothing is known of them: indices of `count` rows.

    This is a greedy D-optimal design for a law that is linear in the logs of work, traffic, work per launch, depth and
    number of devices. The next configuration is the one that the earlier ones predict least well. No measurement is
    read.
    """
    index, distinct = belief.configurations(data, rows)
    nothing = np.array([], dtype=int)
    return index[greedy.spanning(belief.before(distinct), nothing, np.arange(len(index)), count)]


def first_needed(data: Data, context: Context) -> int:
    """The smallest number of runs that can identify the roofline on such rows."""
    return max(MIN_ROWS, rows_needed(data, context))


def fitted(runs: Data, context: Context) -> State | None:
    """The hybrid on the runs measured so far. None where they are too few to identify it."""
    if len(runs) < first_needed(runs, context):
        return None
    (state,) = Hybrid().fit(runs, np.ones((1, len(runs))), context)
    return state if "process" in state else None


def expect(candidates: Data, state: State | None, context: Context) -> Prediction:
    """What the fit predicts for a step of each candidate, [R]. NaN where it is not known, or where there is no fit."""
    if state is None:
        unknown = np.full(len(candidates), np.nan)
        return Prediction(unknown, unknown, np.zeros(len(candidates), dtype=bool))
    return Hybrid().predict(state, candidates, context)[0]


def measure_next(
    runs: Data,
    candidates: Data,
    expected: Prediction,
    joules: np.ndarray,
    count: int,
    context: Context,
    state: State | None,
    targets: Data | None = None,
) -> list[Suggestion]:
    """The `count` candidates to measure next, best first.

    `runs` are measured. `candidates` has one row for each run that may be made (equal rows are repeats). `expected` is
    what `expect` returns for them. `joules` [candidates] is the energy that each would take, NaN where it is not known.
    `state` is `fitted` on `runs`. `targets` are the rows whose expected error is to be lowered, where these are not all
    rows that are measured or may be. Without a fit the choice is D-optimal.
    """
    both = joined(runs, candidates)
    measured, offered = np.arange(len(runs)), len(runs) + np.arange(len(candidates))
    if state is None:
        chosen = [row - len(runs) for row in _by_design(both, measured, offered, count)]
        why = "first set: the row that the ones before it tell least of"
        return [Suggestion(row, why, _known(joules[row]), None, None, None) for row in chosen]
    goal = np.arange(len(both))
    if targets is not None:
        goal = len(both) + np.arange(len(targets))
        both = joined(both, targets)
    known = belief.after(both, state, context)
    usual = np.nanmedian(joules) if np.isfinite(joules).any() else 1.0
    costs = np.where(np.isfinite(joules) & (joules > 0), joules, usual)
    repeats = _repeats(runs, candidates)
    found = []
    for index, choice in islice(greedy.teaching(known, measured, offered, goal, costs), count):
        cost, step_energy = _known(joules[index]), _known(expected.step_energy_j[index])
        why = _reason(choice, bool(repeats[index]))
        found.append(Suggestion(index, why, cost, step_energy, choice.error_before, choice.error_after))
    return found


def _by_design(both: Data, measured: np.ndarray, offered: np.ndarray, count: int) -> list[int]:
    """`count` of the offered rows, D-optimal. No configuration is chosen twice while there are others."""
    values = belief.features(both)
    _, first, index = np.unique(np.round(values, 9), axis=0, return_index=True, return_inverse=True)
    index = index.reshape(-1)
    new = offered[(first[index[offered]] == offered) & ~np.isin(index[offered], index[measured])]
    known = belief.before(values)
    chosen = greedy.spanning(known, measured, new, count)
    if len(chosen) < count:
        runs = np.concatenate([measured, np.array(chosen, dtype=int)])
        chosen += greedy.spanning(known, runs, np.setdiff1d(offered, chosen), count - len(chosen))
    return chosen


def _reason(choice: greedy.Choice, repeat: bool) -> str:
    what = (
        "repeats a run, which tells the noise"
        if repeat
        else f"is known no better than to {choice.own_error:.1%}"
    )
    return f"{what}; expected error {choice.error_before:.2%} to {choice.error_after:.2%}, the most per joule"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _workloads(data: Data) -> list[tuple]:
    columns = (data.columns[name].tolist() for name in (*WORKLOAD, *_PLACEMENT))
    return list(zip(*columns, strict=True))


def _repeats(runs: Data, candidates: Data) -> np.ndarray:
    """Candidates whose configuration has been measured. Bool [candidates]."""
    measured = set(_workloads(runs))
    return np.array([one in measured for one in _workloads(candidates)], dtype=bool)


def joined(runs: Data, candidates: Data) -> Data:
    """The rows of both, runs first. The candidates hold nothing measured that could be read."""
    columns = {
        name: np.concatenate([values, candidates.columns[name]]) for name, values in runs.columns.items()
    }
    made = {name: np.concatenate([values, candidates.proxies[name]]) for name, values in runs.proxies.items()}
    return Data(columns, made)


def context(calibration: Mapping[str, Any] | None = None) -> Context:
    """The context of the fits that choose."""
    from jouleline.model.machine import Machines

    return Context(Machines(calibration), dict(OPTIONS))
