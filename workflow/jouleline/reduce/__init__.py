"""From finished runs to the tables: runs, timings, checks.

The rules of rules/reduce.smk call it.
It must not fit a model or touch a device.
"""
