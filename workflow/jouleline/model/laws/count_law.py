"""Energy over device counts, for a workload that was run on a smaller count: E(N)/E(N0) = phi/eta(N) + 1 - phi.

phi is the share of energy that is static at N0. The law follows from E(N) = N P_s T + work, and from N T / (N0 T0) =
1/eta for equal work. Efficiency is either measured (after the run) or modelled before it: 1/eta = 1 + a log2(N/N0),
because collectives over trees and over rings of rings grow in this way. phi = 1 is the lemma that mean power does not
change with N.
"""

import numpy as np

from jouleline.model.base import Context, Prediction, State, not_identified, nothing, parameter
from jouleline.model.features import Data
from jouleline.model.laws import efficiency


class CountLaw:
    """phi and a, common to the families of one table. `phi` fixes the static share instead of fitting it."""

    def __init__(self, phi: float | None = None):
        self.phi = phi

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`."""
        return [self._fit(data.take(row > 0), row[row > 0]) for row in weights]

    def _fit(self, train: Data, weights: np.ndarray) -> State:
        scaling = efficiency.measured(train)
        doubled = np.log2(train.devices / scaling.reference)
        rows = np.isfinite(doubled) & (doubled > 0)
        if not rows.any():
            return not_identified("no family with two device counts in the training rows")
        loss, energy, w = 1 / scaling.efficiency[rows] - 1, scaling.energy_ratio[rows] - 1, weights[rows]
        slope = float((w * loss * doubled[rows]).sum() / (w * doubled[rows] ** 2).sum())
        phi = self.phi if self.phi is not None else float((w * energy * loss).sum() / (w * loss**2).sum())
        return {
            "identified": True,
            "reason": None,
            "parameters": {
                "static_share": parameter(phi, "", log=False),
                "loss_per_doubling": parameter(slope, "", log=False),
            },
            "diagnostics": {"rows_beyond_reference": int(rows.sum())},
            "phi": phi,
            "slope": slope,
            "references": _references(train, weights),
        }

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`. One prediction uses the modelled efficiency, and one the measured efficiency."""
        modes = (("modelled", False), ("measured", True))
        if "phi" not in state:
            return [
                nothing(data, state["reason"], efficiency_mode=mode, post_run=post) for mode, post in modes
            ]
        known = [state["references"].get(family) for family in data.columns["family"]]
        count, time0, joule0 = np.array([one or [np.nan] * 3 for one in known]).T
        device_time = data.devices * data.step_time_s / data.tokens
        reason = "its workload was not run on a smaller device count"
        predictions = []
        for mode, post_run in modes:
            doubled = np.log2(data.devices / count)
            loss = device_time / time0 if post_run else 1 + state["slope"] * doubled
            energy = joule0 * data.tokens * (1 + state["phi"] * (loss - 1))
            time = np.full(len(data), np.nan) if post_run else time0 * loss * data.tokens / data.devices
            ok = np.isfinite(energy) & (energy > 0)
            predictions.append(Prediction(time, energy, ok, None if ok.all() else reason, mode, post_run))
        return predictions


def _references(train: Data, weights: np.ndarray) -> dict[str, list[float]]:
    """family -> [N0, device-seconds per token, J per token]. Each is the mean over the family's runs on its smallest
    count."""
    found = {}
    device_time, joule = train.devices * train.step_time_s / train.tokens, train.step_energy_j / train.tokens
    for family in sorted(set(train.columns["family"].tolist())):
        rows = train.columns["family"] == family
        first = rows & (train.devices == train.devices[rows].min())
        means = [float(np.average(values[first], weights=weights[first])) for values in (device_time, joule)]
        found[family] = [float(train.devices[first][0]), *means]
    return found
