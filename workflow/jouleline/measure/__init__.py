"""Measuring: all code that can change a measured number. `region` and `step` mark a trainer's time line.

A change below this folder measures every row again, on every user's cluster. So schemas, messages and analysis must
stand elsewhere. It must not import by name (a string), because no digest sees such an import.
"""

from jouleline.measure.raw.markers import region as region
from jouleline.measure.raw.markers import step as step
