"""Measuring: all that can change a measured number. `region` and `step` mark a trainer's time line."""

from jouleline.measure.markers import region, step

__all__ = ["region", "step"]
