"""What a prediction consists of, and that it comes from the right fit."""

import json

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.fit.fitting import fit_split
from jouleline.model.fit.predict import predict_split
from jouleline.model.judge.splits import split_runs


@pytest.fixture(scope="module")
def columns():
    return synthetic.table(36, seed=3)


@pytest.fixture(scope="module")
def fit(columns):
    """A fit of H0 in the form that is read from its file."""
    return json.loads(json.dumps(fit_split(columns, split_runs(columns, "H0", {"seeds": 2}), "constant")))


def test_a_fit_of_other_folds_of_the_same_names_is_refused(columns, fit):
    drawn_again = split_runs(columns, "H0", {"seeds": 2, "seed": 5})
    with pytest.raises(UserError, match="trained on other folds than those of split H0; fit the model"):
        predict_split(columns, drawn_again, fit)


def test_a_fit_of_another_split_is_refused(columns, fit):
    with pytest.raises(UserError, match="is of split H0, not H1"):
        predict_split(columns, split_runs(columns, "H1", {}), fit)


def test_a_fit_of_another_table_with_the_same_runs_is_refused(columns, fit):
    split = split_runs(columns, "H0", {"seeds": 2})
    other = columns | {"energy_j": columns["energy_j"] * 1.1}
    with pytest.raises(UserError, match="another runs table"):
        predict_split(other, split, fit)
    shuffled = np.random.default_rng(0).permutation(36)
    table = predict_split({name: values[shuffled] for name, values in columns.items()}, split, fit)
    assert len(table["run_id"])  # the order of the rows does not matter
