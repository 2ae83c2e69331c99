"""Efficiency is 1 on the reference, and energy is power over efficiency, exactly."""

import numpy as np
import pytest
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.fit.fitting import fit_split, load
from jouleline.model.fit.predict import predict_split
from jouleline.model.judge.splits import split_runs
from jouleline.model.laws import efficiency
from jouleline.model.laws.count_law import CountLaw
from jouleline.model.laws.paper import Paper
from jouleline.model.table.runs import family_names


@pytest.fixture(scope="module")
def scaled():
    """Every workload on 1, 2 and 4 devices, twice, with noise."""
    parts = [
        synthetic.table(12, seed=4, strategies=(s,)) for s in ((1, 1, 0), (2, 1, 1), (4, 1, 3), (1, 1, 0))
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["run_id"] = np.array([f"run-{row}" for row in range(48)], dtype=object)
    columns["energy_j"] = columns["energy_j"] * np.random.default_rng(0).uniform(0.9, 1.1, 48)
    return Data.of({**columns, "family": np.array(family_names(columns), dtype=object)})


def test_identity_on_data(scaled):
    scaling = efficiency.measured(scaled)
    np.testing.assert_allclose(scaling.energy_ratio, scaling.power_ratio / scaling.efficiency, rtol=1e-12)
    assert np.isfinite(scaling.energy_ratio).all()


def test_the_reference_has_efficiency_one(scaled):
    scaling = efficiency.measured(scaled)
    first = scaled.devices == 1
    assert (scaling.reference == 1).all()
    for family in np.unique(scaled.families):
        rows = first & (scaled.families == family)
        assert 1 / np.mean(1 / scaling.efficiency[rows]) == pytest.approx(1, rel=1e-12)
    assert np.median(scaling.efficiency[scaled.devices == 4]) < 0.99


def test_a_family_without_the_reference_count_has_no_measured_efficiency(scaled):
    family = scaled.families == 0
    kept = scaled.take(~(family & (scaled.devices == 1)))
    scaling = efficiency.measured(kept)
    assert np.isnan(scaling.efficiency[kept.families == 0]).all()


def test_a_count_that_is_held_out_keeps_the_reference_of_its_workloads():
    """On the held-out rows alone, their own count would be the smallest, and its efficiency would be 1."""
    parts = [
        synthetic.table(12, seed=4, strategies=(s,)) for s in ((1, 1, 0), (2, 1, 3), (4, 1, 3), (8, 1, 3))
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["run_id"] = np.array([f"run-{row}" for row in range(48)], dtype=object)
    split = split_runs(columns, "H5", {})
    fit = fit_split(columns, split, "paper", None, {"starts": 4, "inner_parts": 2})
    table = predict_split(columns, split, fit)
    data, found = load(columns), {}
    for fold in fit["folds"]:
        *_, whole = Paper().predict(fold["state"], data, Context(options=fit["options"]))
        energy = dict(zip(data.columns["run_id"], whole.step_energy_j * data.steps, strict=True))
        found |= {(fold["fold"], run_id): value for run_id, value in energy.items()}
    own = (table["efficiency_mode"] == "measured") & np.isfinite(table["predicted_energy_j"])
    expected = [found[key] for key in zip(table["fold"][own], table["run_id"][own], strict=True)]
    assert own.sum() == 36
    np.testing.assert_allclose(table["predicted_energy_j"][own], expected, rtol=1e-9)


def test_parametric_curve_is_normalised_where_the_published_is_not(scaled):
    assert efficiency.published_tp(1.0) == pytest.approx(5.2169, rel=1e-4)
    assert (efficiency.parametric(scaled)[scaled.devices == 1] == 1).all()


def test_modelled_efficiency_of_one_device_is_one(scaled):
    single = efficiency.on_one_device(scaled)
    eta = efficiency.modelled(single, single.step_time_s, single, single.step_time_s)
    np.testing.assert_allclose(eta, 1, rtol=1e-12)


def test_count_law_is_exact_on_its_own_form():
    """Energies that consist of a static and a dynamic part are reproduced from two counts, after and before the run."""
    columns = synthetic.table(12, strategies=((1, 1, 0),), noise=0.0)
    parts = []
    for count in (1, 2, 8):
        loss = 1 + 0.1 * np.log2(count)
        time = columns["time_s"] * loss
        energy = count * columns["energy_j"] * (1 + 0.4 * (loss - 1))
        part = {**columns, "time_s": time, "energy_j": energy, "device_count": np.full(12, count)}
        part |= {"data_parallel": np.full(12, count), "tokens": columns["tokens"] * count}
        parts.append(part)
    data = Data.of({name: np.concatenate([part[name] for part in parts]) for name in columns})
    state = CountLaw().fit(data, (data.devices < 8).astype(float)[None], Context())[0]
    assert state["phi"] == pytest.approx(0.4) and state["slope"] == pytest.approx(0.1)
    for prediction in CountLaw().predict(state, data, Context()):
        np.testing.assert_allclose(prediction.step_energy_j, data.step_energy_j, rtol=1e-9)
