"""The interface of a model. It is fitted on weighted rows, kept as JSON, and predicts time and energy of a step."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from jouleline.model.features import Data
from jouleline.model.machine import Machines

State = dict[str, Any]
"""A fitted model as JSON: all that `predict` needs, and `identified`, `reason`, `parameters`, `diagnostics`."""


USEFUL = float(np.log(3.0))
"""Log of the largest factor for the half-width of a 95 % interval. A prediction with a wider one is not identified."""


@dataclass(frozen=True)
class Prediction:
    """One mode of a model's prediction for some rows: arrays [R], per step. NaN where the model gives no value.

    `efficiency_mode` is measured (known only after the run), modelled, parametric, or None where efficiency is not
    used. `post_run` says that the mode uses something measured on the row itself. Then it is no prediction but an upper
    bound on one.
    """

    step_time_s: np.ndarray
    step_energy_j: np.ndarray
    identified: np.ndarray
    reason: str | None = None
    efficiency_mode: str | None = None
    post_run: bool = False


@dataclass(frozen=True)
class Context:
    """What a fit may use in addition to the rows: the calibration of the machines and the options of the campaign."""

    machines: Machines = field(default_factory=Machines)
    options: dict[str, Any] = field(default_factory=dict)


class Model(Protocol):
    """A family of laws. One call makes several fits of one table, which differ only in the weights of its rows."""

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """Fit once per row of `weights` [K, R]. Weight 0 leaves a row out and 2 counts it twice. `warm` gives
        starts."""

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """Predict every row of `data` with one fitted state, in each mode of the model."""


def parameter(value, unit: str, sd: float | None = None, identified: bool = True, log: bool = True) -> dict:
    """A parameter's entry in fit.json. It has null instead of a number where the data do not identify it.

    `sd` is the standard deviation of log(value) where `log` is set, else of the value. The interval is +-1.96 sd.
    """
    if not identified or value is None or not np.isfinite(value):
        return {"value": None, "unit": unit, "lo95": None, "hi95": None, "identified": False}
    low = high = None
    if sd is not None and np.isfinite(sd):
        low, high = (value * np.exp(s * 1.96 * sd) if log else value + s * 1.96 * sd for s in (-1, 1))
    return {
        "value": float(value),
        "unit": unit,
        "lo95": low and float(low),
        "hi95": high and float(high),
        "identified": True,
    }


def not_identified(reason: str) -> State:
    """The state of a fit that was not possible."""
    return {"identified": False, "reason": reason, "parameters": {}, "diagnostics": {}}


def nothing(data: Data, reason: str | None, **labels) -> Prediction:
    """A prediction that says for every row that the model is not identified, and gives the reason."""
    empty = np.full(len(data), np.nan)
    return Prediction(empty, empty, np.zeros(len(data), dtype=bool), reason, **labels)
