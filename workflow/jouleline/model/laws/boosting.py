"""Gradient boosting on raw configurations and FLOP. scikit-learn grows the trees, and they are kept as plain arrays."""

import numpy as np

from jouleline.model.base import Context, Prediction, State, not_identified, nothing
from jouleline.model.features import Data
from jouleline.model.laws import tabular

_GROWN = {"n_estimators": 150, "max_depth": 4, "learning_rate": 0.1, "subsample": 0.8, "min_samples_leaf": 2}
_SAMPLE = 400
"""Rows on which a tree is grown where there are more than 500. Each stage draws other rows, and the trees add up."""


class GradientBoosting:
    """A baseline: log energy and log time of a step as sums of trees."""

    inner_extremes, inner_parts = False, 3
    """Its intervals come only from held-out families. Trees for each end of each axis would take minutes."""

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`."""
        states = []
        for row in weights:
            used = row > 0
            if used.sum() < 8:
                states.append(not_identified(f"{used.sum()} training rows"))
                continue
            how = tabular.encoder(data, used)
            x = _matrix(data, how)[0][used]
            state: State = {
                "identified": True,
                "reason": None,
                "parameters": {},
                "diagnostics": {},
                "columns": how,
            }
            for name, target in (("energy", data.step_energy_j), ("time", data.step_time_s)):
                state[name] = _grow(x, np.log(target[used]), row[used], int(context.options["seed"]))
            states.append(state)
        return states

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`."""
        if "energy" not in state:
            return [nothing(data, state["reason"])]
        x, known = _matrix(data, state["columns"])
        energy, time = (
            np.exp(_sum_of_trees(state[name], x.astype(np.float32))) for name in ("energy", "time")
        )
        return [
            Prediction(time, energy, known, None if known.all() else "a category that was not trained on")
        ]


def _matrix(data: Data, how: dict) -> tuple[np.ndarray, np.ndarray]:
    x, known = tabular.encode(data, how)
    return np.column_stack([x, np.log(data.flop), np.log(data.flop * data.devices), np.log(data.byte)]), known


def _grow(x: np.ndarray, y: np.ndarray, weights: np.ndarray, seed: int) -> dict:
    import sklearn
    from sklearn.ensemble import GradientBoostingRegressor

    share = min(_GROWN["subsample"], _SAMPLE / len(y))
    # Each of the 150 trees would check the same arguments again. This would take as long as growing the tree.
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        grown = GradientBoostingRegressor(random_state=seed, **_GROWN | {"subsample": share})
        grown.fit(x.astype(np.float32), y, sample_weight=weights)
    trees = [_arrays(tree[0].tree_) for tree in grown.estimators_]
    return {"start": float(grown.init_.constant_.ravel()[0]), "rate": grown.learning_rate, "trees": trees}


def _arrays(tree) -> list[list]:
    """[feature (-1: leaf), threshold, left, right, value], each over the nodes of the tree."""
    feature = np.where(tree.children_left < 0, -1, tree.feature)
    return [
        array.tolist()
        for array in (feature, tree.threshold, tree.children_left, tree.children_right, tree.value[:, 0, 0])
    ]


def _sum_of_trees(grown: dict, x: np.ndarray) -> np.ndarray:
    total = np.full(len(x), grown["start"])
    rows = np.arange(len(x))
    for tree in grown["trees"]:
        feature, threshold, left, right, value = (np.array(part) for part in tree)
        node = np.zeros(len(x), dtype=int)
        while (feature[node] >= 0).any():
            goes_left = x[rows, np.maximum(feature[node], 0)] <= threshold[node]
            node = np.where(feature[node] < 0, node, np.where(goes_left, left[node], right[node]))
        total += grown["rate"] * value[node]
    return total
