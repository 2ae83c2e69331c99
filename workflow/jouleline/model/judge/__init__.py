"""Hold-outs and their scores: splits, metrics, gates.

This code decides which rows a fit may see. It must not change a prediction.
"""
