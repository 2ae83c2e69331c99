"""The duties of every model in the registry: a fit as JSON, no look at held-out targets, and a prediction or a
reason."""

import json

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.fit.fitting import fit_split
from jouleline.model.fit.predict import predict_split, to_arrow
from jouleline.model.fit.registry import MODELS, make
from jouleline.model.judge.splits import split_runs
from scramble import scrambled

OPTIONS = {"starts": 4, "bootstrap": 0, "profile": False, "inner_parts": 2}


@pytest.fixture(scope="module")
def columns():
    return synthetic.table(36, seed=3)


def fitted(columns, split, model):
    return json.loads(json.dumps(fit_split(columns, split, model, None, OPTIONS), allow_nan=False))


@pytest.mark.parametrize("model", MODELS)
def test_nothing_measured_on_held_out_runs_moves_a_prediction(columns, model):
    """Every pre-run prediction and interval, per step, stays the same. The length of the window is also measured."""
    split = split_runs(columns, "H0", {"seeds": 1})
    held = np.isin(columns["run_id"].astype(str), split["folds"][0]["test"])
    found = []
    for one in (columns, scrambled(columns, held)):
        table = predict_split(one, split, fitted(one, split, model))
        steps = dict(zip(one["run_id"].tolist(), one["steps"], strict=True))
        before = ~table["post_run"].astype(bool)
        names = ("predicted_time_s", "predicted_energy_j", "energy_lo95_j", "energy_hi95_j")
        window = np.array([steps[run_id] for run_id in table["run_id"][before]])
        found.append([table[name][before].astype(float) / window for name in names])
        assert before.any() or model.endswith("measured")
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_predictions_fill_the_schema_or_say_why(columns, model):
    split = split_runs(columns, "H1", {})
    split["folds"] = split["folds"][:2]
    table = predict_split(columns, split, fitted(columns, split, model))
    arrow = to_arrow(table)
    assert arrow.num_rows == len(table["run_id"]) > 0
    for identified, energy, reason in zip(
        table["identified"], table["predicted_energy_j"], table["reason"], strict=True
    ):
        assert (identified and energy > 0 and reason is None) or (not identified and reason)


def test_models_are_paired_with_the_papers_law_on_the_same_predictions():
    from jouleline.model.judge.validate import validate

    columns = synthetic.table(36, seed=3, strategies=synthetic.SINGLE)
    split = split_runs(columns, "H0", {"seeds": 4})
    fits = [fitted(columns, split, model) for model in ("paper", "roofline", "constant")]
    tables = [predict_split(columns, split, fit) for fit in fits]
    results = [row for row in validate(columns, tables, fits, {})["results"] if row["target"] == "energy"]
    law = next(row for row in results if (row["model"], row["efficiency_mode"]) == ("paper", "parametric"))
    assert law["above_paper"] is None
    for model, sign in (("roofline", -1), ("constant", 1)):
        row = next(row for row in results if row["model"] == model)
        ends = row["above_paper_lo95"], row["above_paper_hi95"]
        # The law's own value is not identified on every row. The pairs are of the rows where it is.
        assert row["n"] >= law["n"] and row["above_paper"] == pytest.approx(
            row["mape"] - law["mape"], abs=0.03
        )
        assert ends[0] < row["above_paper"] < ends[1] and all(np.sign(end) == sign for end in ends), model
    alone = validate(columns, tables[1:], fits[1:], {})["results"]
    assert all(row["above_paper"] is None for row in alone)


def test_unknown_model_and_option_are_refused(columns):
    with pytest.raises(UserError, match="there is no model rooflin"):
        make("rooflin")
    with pytest.raises(UserError, match="no option stars"):
        fit_split(columns, split_runs(columns, "all", {}), "roofline", None, {"stars": 3})


def test_a_split_without_folds_gives_a_fit_that_says_why():
    columns = synthetic.table(12, strategies=synthetic.SINGLE)
    split = split_runs(columns, "H5", {})
    fit = fit_split(columns, split, "roofline", None, OPTIONS)
    assert fit["folds"] == [] and fit["reason"] == "not identified: fewer than three device counts"
    assert len(predict_split(columns, split, fit)["run_id"]) == 0


def test_gradient_boosting_as_arrays_equals_scikit_learn(columns):
    from jouleline.model.base import Context
    from jouleline.model.features import Data
    from jouleline.model.laws import boosting, tabular
    from sklearn.ensemble import GradientBoostingRegressor

    data = Data.of(columns)
    used = np.ones(36, dtype=bool)
    context = Context(options={"seed": 0})
    state = boosting.GradientBoosting().fit(data, used.astype(float)[None], context)[0]
    mine = boosting.GradientBoosting().predict(json.loads(json.dumps(state)), data, context)[0]
    x, _ = boosting._matrix(data, tabular.encoder(data, used))
    theirs = GradientBoostingRegressor(random_state=0, **boosting._GROWN).fit(x, np.log(data.step_energy_j))
    np.testing.assert_allclose(mine.step_energy_j, np.exp(theirs.predict(x)), rtol=1e-9)


def test_hybrid_is_no_worse_inside_and_returns_to_the_law_outside(columns):
    """The data have a wave that the law does not have, and the process learns it. Far away nothing of it remains."""
    from jouleline.model.base import Context
    from jouleline.model.features import Data
    from jouleline.model.laws.hybrid import Hybrid

    wiggled = {**columns, "energy_j": columns["energy_j"] * np.where(columns["hidden"] >= 384, 1.15, 1.0)}
    data = Data.of(wiggled)
    context = Context(options=OPTIONS | {"seed": 0})
    hybrid = Hybrid()
    state = hybrid.fit(data, np.ones((1, 36)), context)[0]
    inside = [model.predict(state, data, context)[0].step_energy_j for model in (hybrid, hybrid.law)]
    errors = [np.mean(np.abs(np.log(each / data.step_energy_j))) for each in inside]
    assert errors[0] < errors[1]
    far = Data.of({**wiggled, "layers": columns["layers"] * 50, "micro_batch": columns["micro_batch"] * 1000})
    outside = [model.predict(state, far, context)[0].step_energy_j for model in (hybrid, hybrid.law)]
    assert np.abs(np.log(outside[0] / outside[1])).max() < np.abs(np.log(inside[0] / inside[1])).max() / 3


@pytest.mark.parametrize("model", MODELS)
def test_a_handful_of_runs_gives_a_reason_and_no_crash(model):
    """The table is the first row of a campaign alone, as in the smoke target. Everything is written, and nothing is
    claimed."""
    from jouleline.model.judge.validate import validate

    columns = synthetic.table(2, source="estimate", device="Example CPU")
    for name in ("all", "H0"):
        split = split_runs(columns, name, {})
        fit = fitted(columns, split, model)
        table = predict_split(columns, split, fit)
        results = validate(columns, [table], [fit], {})["results"]
        json.dumps(results, allow_nan=False)
        assert results and all(result["identified"] or result["reason"] for result in results)
        if model in {"roofline", "hybrid", "paper", "power_law"}:
            assert not any(result["identified"] for result in results if not result["post_run"])
            assert all(result["reason"] for result in results)
