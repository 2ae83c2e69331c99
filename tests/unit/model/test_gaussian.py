"""The Gaussian process: its gradient, and its mean against scikit-learn's."""

import numpy as np
from jouleline.model import gaussian
from scipy.optimize import approx_fprime


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(25, 3))
    return x, np.sin(x[:, 0]) + 0.3 * x[:, 1] + 0.05 * rng.normal(size=25)


def test_gradient_equals_differences():
    x, y = problem()
    squares = (x[:, None] - x[None]) ** 2
    mean, sd = np.zeros(5), np.ones(5)
    hyper = np.array([0.1, -2.0, 0.3, 0.5, 1.0])
    _, gradient = gaussian._loss(hyper, squares, y, mean, sd)
    difference = approx_fprime(hyper, lambda h: gaussian._loss(h, squares, y, mean, sd)[0], 1e-6)
    np.testing.assert_allclose(gradient, difference, rtol=1e-4, atol=1e-4)


def test_mean_equals_scikit_learn():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    x, y = problem()
    hyper = np.array([0.2, -2.0, 0.1, 0.4, 0.9])
    kernel = ConstantKernel(np.exp(0.4)) * Matern(np.exp(hyper[2:]), nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=np.exp(-4.0) + 1e-8, optimizer=None).fit(x, y)
    new = np.random.default_rng(1).normal(size=(10, 3))
    mine = gaussian.mean(new, x, gaussian.condition(x, y, hyper), hyper)
    np.testing.assert_allclose(mine, theirs.predict(new), rtol=1e-8)


def test_mean_vanishes_far_away():
    x, y = problem()
    hyper = gaussian.choose_hyper(x, y, gaussian.RAW, 0)
    alpha = gaussian.condition(x, y, hyper)
    assert np.abs(gaussian.mean(x, x, alpha, hyper) - y).max() < 0.2
    assert np.abs(gaussian.mean(x + 1000, x, alpha, hyper)).max() < 1e-6
