"""Measuring: all that can change a measured number. `region` and `step` mark a trainer's time line.

A change below this folder measures every row again, on everybody's cluster. So it must not hold what only describes
(schemas, messages, analysis), nor import anything by name: no digest sees that.
"""

from jouleline.measure.raw.markers import region as region
from jouleline.measure.raw.markers import step as step
