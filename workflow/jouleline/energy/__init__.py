"""From samples and markers to joules: one row per region, with uncertainty and verdict.

It reads the raw files only through `measure.raw`.
It must not touch a device, or apply prices, carbon or PUE.
"""
