"""The reduced law of the paper, fitted as published: log E = log kappa + aC log C + aM log M + ae log eta +
Psi(strategy).

Zoubeirou a Mayaki, "The Energy Consumption of Transformer Fine-Tuning: A Roofline-Inspired Scaling Model", arXiv
2606.23546v1: C = (12 L d^2 + 3 L S d) x tokens of the run, M = B S d L, ordinary least squares in log space. Here eta
is normalised to 1 on the reference. It has three modes: parametric (the paper's curves), modelled (a roofline fitted on
the same training rows) and measured (known only after the run).

E and C are those of a whole run where the table has whole runs, as the paper's table has. For a measured window they
are those of one step, never of the window. The protocol ends a window by the clock. So the number of steps in it tells
the speed of the run, which is known only after the run.
"""

import numpy as np

from jouleline.model.base import Context, Prediction, State
from jouleline.model.features import Data
from jouleline.model.laws import efficiency, linear
from jouleline.model.roofline.fit import Roofline

PUBLISHED = {"intercept": -10.528, "log C": 0.1955, "log M": 0.0980, "log eta": -1.0601}
PUBLISHED_STRATEGY = {"single": 0.0, "fsdp": 5.384, "tp": 7.649}
"""The coefficients of the paper's Table (410 runs, in-sample adjusted R2 0.853, log-RMSE 0.385)."""

MODES = ("parametric", "modelled", "measured")


def design(data: Data, eta: np.ndarray | None, steps: np.ndarray | float) -> linear.Design:
    """The law's columns: C over `steps`, M and eta. With `eta` None, efficiency is left out."""
    numbers = {
        "log C": np.log(data.proxies["paper_compute"] * steps),
        "log M": np.log(data.proxies["paper_memory"]),
    }
    if eta is not None:
        numbers["log eta"] = np.log(eta)
    return linear.Design(numbers, {"strategy": data.strategy})


class Paper:
    """The reduced law in its three modes. It predicts energy. It has no law of time."""

    def __init__(self, modes: tuple[str, ...] = MODES):
        self.modes = modes
        self._roofline = Roofline()

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`."""
        whole_runs = bool((data.columns["energy_source"] == "outside").all())
        steps = data.steps if whole_runs else 1.0
        target = np.log(data.step_energy_j * steps)
        rooflines: list[State | None] = [None] * len(weights)
        if "modelled" in self.modes and (data.devices > 1).any():
            started = (
                [state["roofline"] for state in warm]
                if warm and all(s.get("roofline") for s in warm)
                else None
            )
            rooflines = self._roofline.fit(data, weights, context, started)
        states = []
        for row, fitted in zip(weights, rooflines, strict=True):
            laws = {
                mode: linear.fit(
                    design(data, self._eta(mode, data, fitted, context), steps),
                    *(target, row, {"strategy": "single"}),
                )
                for mode in self.modes
            }
            states.append(self._state(laws, fitted) | {"whole_runs": whole_runs})
        return states

    def _state(self, laws: dict[str, State], fitted: State | None) -> State:
        parameters = {
            f"{name} ({mode})" if mode != self.modes[0] else name: entry
            for mode, law in laws.items()
            for name, entry in law["parameters"].items()
        }
        first = laws[self.modes[0]]
        slim = (
            {
                key: fitted[key]
                for key in ("vector", "noise", "slots", "identified", "reason")
                if key in fitted
            }
            if fitted
            else None
        )
        return {
            "identified": first["identified"],
            "reason": first["reason"],
            "parameters": parameters,
            "diagnostics": first["diagnostics"],
            "laws": {mode: {k: v for k, v in law.items() if k != "parameters"} for mode, law in laws.items()},
            "roofline": slim,
        }

    def _eta(self, mode: str, data: Data, fitted: State | None, context: Context) -> np.ndarray:
        if mode == "parametric":
            return efficiency.parametric(data)
        if mode == "measured":
            return efficiency.measured(data).efficiency
        if fitted is None:  # every row is on one device
            return np.ones(len(data))
        single = efficiency.on_one_device(data)
        times = [self._roofline.predict(fitted, rows, context)[0].step_time_s for rows in (data, single)]
        return efficiency.modelled(data, times[0], single, times[1])

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`. There is one prediction per mode."""
        predictions = []
        steps = data.steps if state.get("whole_runs") else 1.0
        for mode in self.modes:
            law = state.get("laws", {}).get(mode, state)
            post_run = mode == "measured"
            if post_run and not np.isfinite(data.columns["time_s"].astype(float)).all():
                continue  # nothing has run yet, so no efficiency is measured
            eta = self._eta(mode, data, state.get("roofline"), context)
            log_energy, known = linear.predict(law, design(data, eta, steps), len(data))
            energy = np.exp(log_energy) / steps
            reason = (
                law["reason"]
                if known.all()
                else "the training rows do not reach this strategy and device count"
            )
            identified = known & bool(law["identified"])
            predictions.append(
                Prediction(np.full(len(data), np.nan), energy, identified, reason, mode, post_run)
            )
        return predictions
