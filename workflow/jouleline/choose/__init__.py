"""Deciding: which configuration of one training to run, by time, energy and money, and how sure that is.

One piece of code behind `jouleline choose`, the target `choose` and the report's first section.
It must not measure, fit, or know how an answer is shown on a page.
"""
