"""The meters (NVML, RAPL, estimate) behind one small interface, and the devices they find.

A new meter is a class of `base.Meter` that `choice` knows.
It must not write files nor start processes.
"""
