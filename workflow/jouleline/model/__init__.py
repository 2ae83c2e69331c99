"""From the runs table to predictions: features, laws, fits, and their scores on held-out runs.

The rooms depend on each other in this order: table, roofline, laws, fit, judge. This code must not read raw
measurements. A held-out run must never reach its own prediction.
"""
