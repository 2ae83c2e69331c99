"""One fit and its predictions: registry, intervals, bootstrap, files of fitted models.

A fit here sees the training rows and no others. This code must not score.
"""
