"""What is not known of the log energy of each row, as a Gaussian. Its covariance says which rows inform about which.

Before any run the belief is that of a law which is linear in the logs of what a step does. After a fit it is the
roofline, linear in its parameters around the fit, each as wide as its prior. The Gaussian process of the hybrid's
residual is added. Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), section 2.7, describe such a
process with explicit basis functions.
"""

from dataclasses import dataclass

import numpy as np

from jouleline.model.base import Context, State
from jouleline.model.features import CATEGORIES, Data
from jouleline.model.laws import gaussian, tabular
from jouleline.model.roofline import law
from jouleline.model.roofline.fit import Roofline, row_values
from jouleline.model.roofline.structure import build

_UNKNOWN_SD = 10.0
"""What is known of a coefficient before any run, in units of a run's noise: almost nothing."""


@dataclass(frozen=True)
class Belief:
    """Covariance of R log energies: law law^T + signal^2 Matern(points). A run of a row adds noise^2.

    `law` [R, K] has the directions of the law's parameters, each times the sd of its prior. `points` [R, P] are the
    rows in units of the lengths of the process.
    """

    law: np.ndarray
    points: np.ndarray
    signal: float
    noise: float

    def __len__(self) -> int:
        return len(self.law)

    def covariance(self, here: np.ndarray, there: np.ndarray) -> np.ndarray:
        """The covariance between some rows and others (indices), [here, there]."""
        found = self.law[here] @ self.law[there].T
        if self.signal:
            found += self.signal**2 * gaussian.correlation(self.points[here], self.points[there])
        return found

    def variance(self) -> np.ndarray:
        """The variance of every row, [R]."""
        return (self.law**2).sum(axis=1) + self.signal**2


def features(data: Data) -> np.ndarray:
    """What is known of each row before any run, [R, K].

    These are the logs of work, traffic, work per launch, depth and devices. Where the rows differ in a category, its
    levels except the first are added.
    """
    amounts = (data.flop, data.byte, data.launch_flop, data.columns["layers"].astype(float), data.devices)
    columns = [np.log(amount) for amount in amounts]
    for name in CATEGORIES:
        levels, index = data.labels(name)
        columns += [(index == code).astype(float) for code in range(1, len(levels))]
    return np.column_stack(columns)


def configurations(data: Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each configuration, among some rows (mask). Configurations are distinct in their features.

    Returns (these rows, their features [configurations, K]).
    """
    index = np.flatnonzero(rows)
    distinct, first = np.unique(np.round(features(data)[index], 9), axis=0, return_index=True)
    return index[first], distinct


def before(values: np.ndarray) -> Belief:
    """The belief before any run, in units of a run's noise, from the `features` of the rows. [R]"""
    spread = values.std(axis=0)
    varies = spread > 1e-9
    scaled = (values - values.mean(axis=0))[:, varies] / spread[varies]
    directions = _UNKNOWN_SD * np.hstack([np.ones((len(values), 1)), scaled])
    return Belief(directions, np.zeros((len(values), 1)), 0.0, 1.0)


def after(data: Data, state: State, context: Context) -> list[Belief]:
    """What a fitted hybrid (`state`) believes of the time and of the power of every row of `data`.

    Its training rows may be among them. A run tells both time and power. They are taken as independent, so their
    unknown parts of the energy add up.
    """
    process = state["process"]
    points = tabular.encode(data, process["columns"])[0]
    beliefs = []
    for name, directions in _directions(data, state, context).items():
        hyper = np.array(process["targets"][name]["hyper"])
        signal, noise = np.exp(hyper[:2]).tolist()
        beliefs.append(Belief(directions, points * np.exp(-hyper[2:]), signal, noise))
    return beliefs


def _directions(data: Data, state: State, context: Context) -> dict[str, np.ndarray]:
    """d log time / d parameter and d log power / d parameter, times the sd of the prior, [R, K] each.

    A row may need a slot that no training row had. For this purpose the slot is taken to be like that of the other
    rows. The prior of its deviation says how far off it may be.
    """
    roofline = Roofline()
    options = roofline.options(context)
    values, _, _ = row_values(state, data, context, options)
    for name, value in values.items():
        known = np.isfinite(value)
        values[name] = np.where(known, value, value[known].mean() if known.any() else 0.0)
    fitted = frozenset(name for name, entry in state["slots"].items() if entry["fitted"])
    structure = build(data, context.machines, options, fitted)
    with np.errstate(over="ignore", invalid="ignore"):
        of_time, of_energy = law.step(values, law.inputs(data))[2:]
    of_power = {name: slope - of_time.get(name, 0.0) for name, slope in of_energy.items()}
    found = {}
    for target, slopes in (("time", of_time), ("power", of_power)):
        directions = np.zeros((len(data), len(structure.prior_sd)))
        for name, slope in slopes.items():
            slot = structure.slots[name]
            for column, share in slot.loads.items():
                directions[:, column] += np.nan_to_num(slope) * share[slot.group]
        found[target] = directions * structure.sds(state["spread"])
    return found
