"""How much devices differ from their data sheets is learnt from the devices of the table, and holds for one more."""

import numpy as np
import pytest
import synthetic
import worlds
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.roofline import hierarchy
from jouleline.model.roofline.fit import Roofline
from scipy import stats

CONTEXT = Context(options={"starts": 4, "seed": 0})


def test_the_factor_is_that_of_a_linear_model():
    """The comparison is with the density of the data themselves, and at every point where the law is made linear."""
    rng = np.random.default_rng(2)
    slopes, prior_sd = rng.normal(size=(40, 6)), np.array([2.0, 0.3, 0.3, 0.3, 0.3, 0.3])
    between = np.arange(6) > 0
    for factor in (0.3, 2.0):
        drawn = rng.normal(size=6) * prior_sd * np.where(between, factor, 1)
        values = slopes @ drawn + rng.normal(size=40)
        density = []
        for one in hierarchy._FACTORS:
            sds = prior_sd * np.where(between, one, 1)
            covariance = (slopes * sds**2) @ slopes.T + np.eye(40)
            beforehand = stats.norm(0, hierarchy._SD).logpdf(np.log(one))
            density.append(stats.multivariate_normal(np.zeros(40), covariance).logpdf(values) + beforehand)
        odds = np.exp(np.array(density) - max(density))
        mean = np.exp(odds @ np.log(hierarchy._FACTORS) / odds.sum())
        assert abs(np.log(mean / factor)) < 0.7
        for theta in (np.zeros(6), rng.normal(size=6)):
            found = hierarchy.factor(
                slopes.T @ slopes, slopes.T @ (slopes @ theta - values), theta, prior_sd, between
            )
            assert found == pytest.approx(mean)


@pytest.fixture(scope="module")
def states():
    found = {}
    for spread in (0.02, 0.4):
        data = Data.of(worlds.world(3, spread))
        found[spread] = Roofline().fit(data, np.ones((1, len(data))), CONTEXT)[0]
    return found


def test_devices_that_agree_are_taken_to_agree(states):
    near, far = states[0.02], states[0.4]
    assert near["spread"] < 0.5 < far["spread"]
    assert near["unseen"]["device"]["energy"] < 0.1 < 0.15 < far["unseen"]["device"]["energy"]


def test_of_one_device_nothing_is_learnt():
    data = Data.of(synthetic.table(40))
    state = Roofline().fit(data, np.ones((1, 40)), CONTEXT)[0]
    assert state["spread"] == 1 and state["unseen"] == {}
