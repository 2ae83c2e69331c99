"""What is done on few rows where a table is long: starts, processes, trees, intervals, folds."""

import numpy as np
import pytest
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.fit import fitting, intervals
from jouleline.model.judge.splits import MOST_ARCHITECTURES, split_runs
from jouleline.model.laws import gaussian
from jouleline.model.laws.boosting import GradientBoosting
from jouleline.model.laws.hybrid import Hybrid
from jouleline.model.roofline import lsq
from jouleline.model.roofline.fit import Roofline
from jouleline.model.roofline.problem import Problem

CONTEXT = Context(options={"starts": 4, "seed": 0})


@pytest.fixture(scope="module")
def long_table():
    """Two devices. The second has few runs among those of the first."""
    parts = [synthetic.table(rows, seed=rows, device=name) for rows, name in ((240, "A100"), (20, "H100"))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return columns | {"run_id": np.array([f"run-{row}" for row in range(260)], dtype=object)}


def test_many_starts_on_few_rows_find_the_optimum_of_all_rows(long_table):
    data = Data.of(long_table)
    weights = np.vstack([np.ones(260), np.arange(260) < 243])
    problem = Problem(data, weights, CONTEXT, Roofline().options(CONTEXT))
    few = problem.few(60, 0)
    assert 60 <= few.weights.shape[1] <= 90
    np.testing.assert_allclose(few.weights.sum(axis=1), weights.sum(axis=1))
    assert (few.weights[1] == 1).sum() == 3  # the only runs of the second device that the second fit sees
    starts = lsq.sobol_starts(8, len(problem.structure.names), problem.structure.spread)
    found = problem.search(starts, 0)
    whole = lsq.minimise(
        problem.evaluate,
        problem.row_weights,
        np.broadcast_to(problem.structure.prior_sd, (2, starts.shape[1])),
        np.broadcast_to(starts, (2, *starts.shape)),
        polish=False,
        tolerance=1e-6,
    )
    reached = problem.solve(found.theta[:, None], np.ones(2))
    assert (reached.cost <= whole.cost * 1.002 + 0.01).all()
    assert (found.agreeing >= 0.1).all() and found.starts == 8


def test_rows_that_are_left_out_move_no_start(long_table):
    """The scramble test for a table on which many starts begin on few rows."""
    train = np.random.default_rng(5).random(260) < 0.7
    scrambled = dict(long_table)
    for name in ("time_s", "energy_j"):
        mixed = np.random.default_rng(6).permutation(long_table[name]) * 3
        scrambled[name] = np.where(train, long_table[name], mixed)
    found = []
    for columns in (long_table, scrambled):
        data = Data.of(columns)
        state = Hybrid().fit(data, train[None].astype(float), CONTEXT)[0]
        found.append(Hybrid().predict(state, data, CONTEXT)[0].step_energy_j)
    np.testing.assert_array_equal(*found)


def test_a_fit_that_models_share_is_handed_out_as_new(long_table):
    data, weights = Data.of(long_table).take(np.arange(60)), np.ones((1, 60))
    first = Roofline().fit(data, weights, CONTEXT)[0]
    first["parameters"]["static_power_w"]["value"] = first["process"] = None
    again = Roofline().fit(data, weights, CONTEXT)[0]
    assert again["parameters"]["static_power_w"]["value"] and "process" not in again


def test_a_process_summed_over_some_configurations_is_nearly_that_of_all():
    rng = np.random.default_rng(0)
    x, new = rng.uniform(-1, 1, (600, 2)), rng.uniform(-1, 1, (50, 2))
    points = gaussian.Points.of(x, np.sin(3 * x[:, 0]) * x[:, 1] + 0.05 * rng.normal(size=600))
    hyper = np.array([0.0, np.log(0.05), 0.0, 0.0])
    every = gaussian.mean(new, points.x, gaussian.condition(points, hyper), hyper)
    bases = points.some(150, 0).x
    some = gaussian.mean(new, bases, gaussian.condition(points, hyper, bases), hyper)
    np.testing.assert_allclose(some, every, atol=0.05)
    same = gaussian.mean(new, points.x, gaussian.condition(points, hyper, points.x), hyper)
    np.testing.assert_allclose(same, every, atol=1e-4)


def test_trees_of_a_long_table_are_grown_on_samples(long_table):
    data = Data.of(long_table)
    long = data.take(np.tile(np.arange(260), 4))
    state = GradientBoosting().fit(long, np.ones((1, 1040)), CONTEXT)[0]
    errors = np.log(GradientBoosting().predict(state, long, CONTEXT)[0].step_energy_j / long.step_energy_j)
    assert np.abs(errors).mean() < 0.1


def test_a_sample_keeps_every_level_and_whole_families(long_table):
    data = Data.of(long_table)
    train = np.ones(260, dtype=bool)
    rows = intervals.drawn(data, train, 60)
    assert 60 <= len(rows) < 250
    assert set(data.columns["device"][rows]) == {"A100", "H100"}
    assert not set(data.families[rows]) & set(np.delete(data.families, rows))


def test_intervals_of_a_long_table_come_from_a_sample(long_table, monkeypatch):
    monkeypatch.setattr(fitting, "_MOST_ROWS", 100)
    split = split_runs(long_table, "H0", {"seeds": 1})
    options = {"starts": 2, "inner_parts": 2}
    fold = fitting.fit_split(long_table, split, "power_law", None, options)["folds"][0]
    assert 0 < fold["intervals"]["none"]["energy"]["inside"]["0.95"] < 1


def test_of_very_many_architectures_groups_are_left_out():
    columns = synthetic.table(400, seed=3)
    columns["heads"] = np.arange(400) % 60 + 1
    columns["family"] = np.array([f"family-{row}" for row in range(400)], dtype=object)
    folds = split_runs(columns, "H1", {})["folds"]
    assert len(folds) == MOST_ARCHITECTURES
    assert sum(len(fold["test"]) for fold in folds) == 400
