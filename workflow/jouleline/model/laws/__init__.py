"""Every model that can be fitted: the paper's law, baselines, count law, Gaussian process, boosting, hybrid.

A new law is a class of `model.base.Model` that `fit.registry` knows.
It must not split data nor judge itself.
"""
