"""Recovery of known constants and coverage of intervals, over many synthetic tables."""

import numpy as np
import pytest
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.fit.fitting import fit_split
from jouleline.model.fit.predict import predict_split
from jouleline.model.judge.splits import split_runs
from jouleline.model.roofline import law as roofline
from jouleline.model.roofline.fit import Roofline


def recovered(draws: int, rows: int) -> dict[str, list[bool]]:
    """Per identified parameter: whether the truth lay in its 95 % interval, draw by draw."""
    inside: dict[str, list[bool]] = {}
    for seed in range(draws):
        data = Data.of(synthetic.table(rows, seed=seed))
        state = Roofline().fit(data, np.ones((1, rows)), Context(options={"starts": 16}))[0]
        assert state["identified"], state["reason"]
        for name, entry in state["parameters"].items():
            if entry["identified"]:
                truth = roofline.natural(name, synthetic.TRUTH[name])
                inside.setdefault(name, []).append(bool(entry["lo95"] <= truth <= entry["hi95"]))
    return inside


def coverage(draws: int, rows: int) -> dict[str, float]:
    """Share of held-out energies inside the 80 and 95 % intervals, over draws."""
    hits: dict[str, list[bool]] = {"80": [], "95": []}
    for seed in range(draws):
        columns = synthetic.table(rows, seed=100 + seed)
        split = split_runs(columns, "H0", {"seeds": 1, "seed": seed})
        fit = fit_split(columns, split, "roofline", None, {"starts": 8})
        table = predict_split(columns, split, fit)
        for level, found in hits.items():
            low, high = table[f"energy_lo{level}_j"], table[f"energy_hi{level}_j"]
            found += ((table["energy_j"] >= low) & (table["energy_j"] <= high)).tolist()
    return {level: float(np.mean(found)) for level, found in hits.items()}


def test_recovers_most_constants_in_a_few_draws():
    inside = recovered(6, 80)
    everything = [hit for hits in inside.values() for hit in hits]
    assert len(inside) >= 10
    assert np.mean(everything) >= 0.85


@pytest.mark.long
def test_each_identified_constant_is_in_its_interval_in_nine_of_ten_draws():
    inside = recovered(50, 120)
    for name, hits in inside.items():
        if len(hits) >= 25:  # identified in at least half of the draws
            assert np.mean(hits) >= 0.9, (name, np.mean(hits))


@pytest.mark.long
def test_prediction_intervals_cover_what_they_say():
    found = coverage(50, 120)
    assert found["80"] == pytest.approx(0.80, abs=0.03)
    assert found["95"] == pytest.approx(0.95, abs=0.03)
