"""The choice of a configuration for one training, by time, energy and money, with its uncertainty.

The same code serves `jouleline choose`, the target `choose` and the report's first section.
It must not measure, fit, or know how a page shows an answer.
"""
