"""The choice of runs itself, compared with the posterior of a textbook and with chance."""

import numpy as np
import pytest
from jouleline.model.frugal.belief import Belief, before
from jouleline.model.frugal.greedy import Beliefs, spanning, teaching
from jouleline.model.laws.gaussian import correlation


@pytest.fixture
def belief():
    rng = np.random.default_rng(0)
    return Belief(rng.normal(size=(30, 3)), rng.normal(size=(30, 2)), 0.5, 0.2)


def posterior(belief, runs):
    """Covariance of every row after the runs, by one solve."""
    prior = belief.law @ belief.law.T + belief.signal**2 * correlation(belief.points, belief.points)
    inner = prior[np.ix_(runs, runs)] + belief.noise**2 * np.eye(len(runs))
    return prior - prior[:, runs] @ np.linalg.solve(inner, prior[runs])


def test_runs_counted_in_one_by_one_are_the_posterior(belief):
    runs = np.array([3, 7, 7, 11])
    beliefs = Beliefs(belief, runs[:2])
    for row in runs[2:]:
        beliefs.after_run(int(row))
    whole = posterior(belief, runs)
    rows = np.arange(30)
    np.testing.assert_allclose(beliefs.variance, np.diag(whole), atol=1e-10)
    np.testing.assert_allclose(beliefs.shared(rows, rows), whole, atol=1e-10)


def test_the_best_per_joule_is_what_trying_each_would_find(belief):
    runs, rows = np.array([0, 1]), np.arange(2, 30)
    joules = np.random.default_rng(1).uniform(1, 5, 28)
    (index, choice), (second, _) = [
        one for one, _ in zip(teaching([belief], runs, rows, np.arange(30), joules), range(2))
    ]
    now = np.diag(posterior(belief, runs)).mean()
    gains = [now - np.diag(posterior(belief, np.append(runs, row))).mean() for row in rows]
    assert index == int(np.argmax(np.array(gains) / joules)) and choice.row == rows[index] and second != index
    assert choice.error_before == pytest.approx(now**0.5)
    assert choice.error_after == pytest.approx((now - gains[index]) ** 0.5)


def test_a_repeat_is_chosen_where_noise_hides_what_matters():
    """Two rows are unrelated. One is asked for and was measured badly, so a repeat of it teaches most."""
    belief = Belief(np.eye(2), np.zeros((2, 1)), 0.0, 1.0)
    index, _ = next(teaching([belief], np.array([0]), np.array([0, 1]), np.array([0]), np.ones(2)))
    assert index == 0


def test_spanning_takes_no_row_twice_and_goes_on_from_what_is_measured():
    features = np.linspace(0, 1, 21)[:, None]
    known = before(features)
    nothing = np.array([], dtype=int)
    assert set(spanning(known, nothing, np.arange(21), 2)) == {0, 20}
    assert spanning(known, np.array([0]), np.arange(21), 1) == [20]
    assert sorted(spanning(known, nothing, np.arange(21), 99)) == list(range(21))
