"""One fit and its predictions: registry, intervals, bootstrap, fitted model files.

What is fitted here sees the training rows and no others.
It must not score.
"""
