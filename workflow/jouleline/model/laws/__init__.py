"""All models that can be fitted: the paper's law, baselines, count law, Gaussian process, boosting, hybrid.

A new law is a class like `model.base.Model`, listed in `fit.registry`. It must not split data or score itself.
"""
