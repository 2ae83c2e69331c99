"""The paper's law in its published form, and our additions to it."""

import numpy as np
import pytest
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.laws import efficiency, linear, paper
from jouleline.model.laws.paper import Paper

STRATEGIES = ((1, 1, 0), (2, 1, 3), (4, 1, 3), (2, 2, 0), (4, 4, 0))
OPTIONS = {"starts": 4}


@pytest.fixture(scope="module")
def published():
    """A table of whole runs with different lengths. Their energies are the published law, without noise."""
    columns = synthetic.table(60, strategies=STRATEGIES, source="outside")
    columns["steps"] = columns["steps"] * np.random.default_rng(0).integers(1, 50, 60)
    data = Data.of(columns)
    eta = efficiency.published_tp(columns["tensor_parallel"]) * efficiency.published_dp(
        columns["data_parallel"]
    )
    known = {
        "log C": data.proxies["paper_compute"] * data.steps,
        "log M": data.proxies["paper_memory"],
        "log eta": eta,
    }
    shift = np.array([paper.PUBLISHED_STRATEGY[name] for name in data.strategy])
    log_energy = paper.PUBLISHED["intercept"] + shift
    log_energy += sum(paper.PUBLISHED[name] * np.log(values) for name, values in known.items())
    return Data.of({**columns, "energy_j": np.exp(log_energy)})


def test_refit_of_the_published_law_gives_the_published_coefficients(published):
    state = Paper(("parametric",)).fit(published, np.ones((1, 60)), Context(options=OPTIONS))[0]
    values = {name: entry["value"] for name, entry in state["parameters"].items()}
    for name in ("log C", "log M", "log eta"):
        assert values[name] == pytest.approx(paper.PUBLISHED[name], abs=1e-9)
    assert values["strategy=fsdp"] == pytest.approx(5.384) and values["strategy=tp"] == pytest.approx(7.649)
    # eta is 1 on one device here and 5.2 in the paper. The constant absorbs the difference.
    shift = paper.PUBLISHED["log eta"] * np.log(efficiency.published_tp(1.0) * efficiency.published_dp(1.0))
    assert values["intercept"] == pytest.approx(paper.PUBLISHED["intercept"] + shift)


def test_the_length_of_measured_windows_moves_no_coefficient(runs):
    factor = np.random.default_rng(0).integers(1, 9, len(runs["steps"]))
    longer = runs | {name: runs[name] * factor for name in ("steps", "tokens", "time_s", "energy_j")}
    fits = [
        Paper(("parametric",)).fit(Data.of(one), np.ones((1, len(factor))), Context(options=OPTIONS))[0]
        for one in (runs, longer)
    ]
    values = [[entry["value"] for entry in fit["parameters"].values()] for fit in fits]
    np.testing.assert_allclose(*values, rtol=1e-9)


def test_three_modes_with_their_labels(runs):
    data = Data.of(runs)
    context = Context(options=OPTIONS)
    state = Paper().fit(data, np.ones((1, len(data))), context)[0]
    found = {(p.efficiency_mode, p.post_run) for p in Paper().predict(state, data, context)}
    assert found == {("parametric", False), ("modelled", False), ("measured", True)}


def test_rows_still_to_be_run_have_no_measured_efficiency(runs):
    data = Data.of(runs)
    context = Context(options=OPTIONS)
    state = Paper().fit(data, np.ones((1, len(data))), context)[0]
    planned = Data.of({**runs, "time_s": np.full(len(data), np.nan), "energy_j": np.full(len(data), np.nan)})
    assert [p.efficiency_mode for p in Paper().predict(state, planned, context)] == ["parametric", "modelled"]


def test_an_unseen_strategy_is_not_identified(published):
    train = (published.strategy != "tp").astype(float)[None]
    model = Paper(("parametric",))
    state = model.fit(published, train, Context(options=OPTIONS))[0]
    prediction = model.predict(state, published, Context(options=OPTIONS))[0]
    assert not prediction.identified[published.strategy == "tp"].any()
    assert prediction.identified[published.strategy != "tp"].all()


def test_collinear_coefficients_are_not_quoted_but_predict():
    """Two columns move together in training. Their sum predicts, neither is known, and rows where they differ are not
    reached."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    design = linear.Design({"a": x, "b": 2 * x})
    state = linear.fit(design, 3 + 5 * x, np.ones(20))
    assert not state["parameters"]["a"]["identified"] and state["parameters"]["a"]["value"] is None
    assert state["parameters"]["intercept"]["value"] == pytest.approx(3)
    value, known = linear.predict(state, design, 20)
    assert known.all()
    np.testing.assert_allclose(value, 3 + 5 * x)
    _, known = linear.predict(state, linear.Design({"a": x, "b": x}), 20)
    assert not known.any()
