"""The roofline law times the exponential of a Gaussian process on its log residual.

Inside the data the process takes up what the law leaves; outside, its mean goes to 0: back to physics.
"""

import numpy as np

from jouleline.model.base import Context, Prediction, State
from jouleline.model.features import Data
from jouleline.model.laws.gaussian import RESIDUAL, Residuals
from jouleline.model.roofline.fit import Roofline


class Hybrid:
    """log E = log E_roofline + process, and the same for time."""

    def __init__(self):
        self.law = Roofline()
        self._process = Residuals(RESIDUAL)

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`: first the law, then the process on the residuals of its own training rows."""
        states = self.law.fit(data, weights, context, warm)
        for number, (row, state) in enumerate(zip(weights, states, strict=True)):
            if "slots" not in state:
                continue
            law = self.law.predict(state, data, context)[0]
            used = (row > 0) & np.isfinite(law.step_energy_j) & np.isfinite(law.step_time_s)
            targets = {
                "energy": np.where(used, np.log(data.step_energy_j / law.step_energy_j), 0.0),
                "time": np.where(used, np.log(data.step_time_s / law.step_time_s), 0.0),
            }
            before = warm[number].get("process") if warm else None
            process = self._process.fit(data, used, targets, int(context.options["seed"]), before)
            state["process"] = process
        return states

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`; a row with a category that was not trained on gets the law alone."""
        law = self.law.predict(state, data, context)[0]
        if "process" not in state:
            return [law]
        means, known = self._process.predict(state["process"], data)
        energy, time = (np.exp(np.where(known, means[name], 0.0)) for name in ("energy", "time"))
        return [
            Prediction(
                law.step_time_s * time,
                law.step_energy_j * energy,
                law.identified,
                law.reason,
                law.efficiency_mode,
                law.post_run,
            )
        ]
