"""The meters (NVML, RAPL, estimate) with one small interface, and the devices that they find.

A new meter is a class like `base.Meter`, listed in `choice`.
It must not write files or start processes.
"""
