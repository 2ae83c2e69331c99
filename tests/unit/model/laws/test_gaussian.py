"""The Gaussian process: its gradient, and its mean compared with that of scikit-learn."""

import numpy as np
import pytest
from jouleline.model.laws import gaussian
from scipy.optimize import approx_fprime


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(25, 3))
    return x, np.sin(x[:, 0]) + 0.3 * x[:, 1] + 0.05 * rng.normal(size=25)


def replicated():
    """Runs x [R, P], y [R]. Some share a configuration: one, two or three runs of each."""
    x, y = problem()
    index = np.repeat(np.arange(25), np.arange(25) % 3 + 1)
    return x[index], y[index] + 0.1 * np.random.default_rng(2).normal(size=len(index))


HYPER = np.array([0.1, -2.0, 0.3, 0.5, 1.0])


def loss(hyper, points):
    squares = (points.x.T[:, :, None] - points.x.T[:, None]) ** 2
    return gaussian._loss(hyper, squares, points, np.zeros(5), np.ones(5))


def test_gradient_equals_differences():
    for x, y in (problem(), replicated()):
        points = gaussian.Points.of(x, y)
        difference = approx_fprime(HYPER, lambda h, p=points: loss(h, p)[0], 1e-6)
        np.testing.assert_allclose(loss(HYPER, points)[1], difference, rtol=1e-4, atol=1e-4)


def test_replicates_are_worth_as_much_together_as_apart():
    """One row per run and points must give the same mean, and the same posterior of the hyper-parameters up to a
    constant."""
    x, y = replicated()
    apart = gaussian.Points(x, y, np.ones(len(y)), 0.0)
    together = gaussian.Points.of(x, y)
    assert len(together.y) == 25 < len(y)
    other = HYPER + np.array([0.3, 0.4, -0.2, 0.1, 0.2])
    steps = [loss(other, points)[0] - loss(HYPER, points)[0] for points in (apart, together)]
    assert steps[0] == pytest.approx(steps[1], rel=1e-5)
    new = np.random.default_rng(1).normal(size=(10, 3))
    means = [gaussian.mean(new, p.x, gaussian.condition(p, HYPER), HYPER) for p in (apart, together)]
    np.testing.assert_allclose(*means, rtol=1e-5)


def test_mean_equals_scikit_learn():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    x, y = problem()
    hyper = np.array([0.2, -2.0, 0.1, 0.4, 0.9])
    kernel = ConstantKernel(np.exp(0.4)) * Matern(np.exp(hyper[2:]), nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=np.exp(-4.0) + 1e-8, optimizer=None).fit(x, y)
    new = np.random.default_rng(1).normal(size=(10, 3))
    points = gaussian.Points.of(x, y)
    mine = gaussian.mean(new, points.x, gaussian.condition(points, hyper), hyper)
    np.testing.assert_allclose(mine, theirs.predict(new), rtol=1e-8)


def test_mean_vanishes_far_away():
    x, y = problem()
    points = gaussian.Points.of(x, y)
    hyper = gaussian.choose_hyper(points, gaussian.RAW["power"], 0)
    alpha = gaussian.condition(points, hyper)
    assert np.abs(gaussian.mean(x, points.x, alpha, hyper) - y).max() < 0.2
    assert np.abs(gaussian.mean(x + 1000, points.x, alpha, hyper)).max() < 1e-6
