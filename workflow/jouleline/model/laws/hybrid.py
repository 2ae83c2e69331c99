"""The roofline law times the exponentials of Gaussian processes on its log residuals, of time and of power.

Inside the data, the process adds what the law lacks. Outside, its mean goes to 0, and the law alone remains.
"""

import numpy as np

from jouleline.model.base import Context, Prediction, State
from jouleline.model.features import Data
from jouleline.model.laws.gaussian import RESIDUAL, Residuals, log_targets
from jouleline.model.roofline.fit import Roofline


class Hybrid:
    """log t = log t_roofline + process, and the same for the power E/t. The product of both is the energy."""

    def __init__(self):
        self.law = Roofline()
        self._process = Residuals(RESIDUAL)

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`. The law is fitted first. Then the process is fitted on the residuals of the same training
        rows."""
        states = self.law.fit(data, weights, context, warm)
        for number, (row, state) in enumerate(zip(weights, states, strict=True)):
            if "slots" not in state:
                continue
            law = self.law.predict(state, data, context)[0]
            used = (row > 0) & np.isfinite(law.step_energy_j) & np.isfinite(law.step_time_s)
            with np.errstate(divide="ignore", invalid="ignore"):
                by_law = {
                    "time": np.log(law.step_time_s),
                    "power": np.log(law.step_energy_j / law.step_time_s),
                }
            targets = {
                name: np.where(used, values - by_law[name], 0.0) for name, values in log_targets(data).items()
            }
            before = warm[number].get("process") if warm else None
            process = self._process.fit(data, used, targets, int(context.options["seed"]), before)
            state["process"] = process
        return states

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`. A row with a category that was not trained on gets the law alone."""
        law = self.law.predict(state, data, context)[0]
        if "process" not in state:
            return [law]
        means, known = self._process.predict(state["process"], data)
        time, power = (np.exp(np.where(known, means[name], 0.0)) for name in ("time", "power"))
        return [
            Prediction(
                law.step_time_s * time,
                law.step_energy_j * time * power,
                law.identified,
                law.reason,
                law.efficiency_mode,
                law.post_run,
            )
        ]
