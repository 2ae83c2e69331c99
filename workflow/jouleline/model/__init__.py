"""From the runs table to predictions: features, laws, fits, and their judgement on held-out runs.

The rooms follow each other: table, roofline, laws, fit, judge.
It must not read raw measurements, nor let a held-out run reach its own prediction.
"""
