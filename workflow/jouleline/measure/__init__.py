"""Measuring: all that can change a measured number. `region` and `step` mark a trainer's time line."""

from jouleline.measure.markers import region as region
from jouleline.measure.markers import step as step
