"""From samples and markers to joules: one row per region, with uncertainty and verdict.

It reads the raw files through `measure.raw` only.
It must not touch a device, nor apply prices, carbon or PUE.
"""
