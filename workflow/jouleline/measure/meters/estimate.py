"""An estimate for machines without a meter: CPU time of the measured processes times declared watts.

energy_j = idle_watts x elapsed seconds + watts_per_core x CPU seconds. This is not a measurement. The user declares the
two watts, and every result says energy_source = estimate. It has no uncertainty, because none is known.
"""

import os
import time

from jouleline.measure.meters.base import FAST, LaneSpec, Options
from jouleline.measure.raw.tree_time import TreeTime

DISCOVER_S = 0.2


class EstimateMeter:
    """One device per node: the measured processes without the sidecar.

    A process is found within DISCOVER_S of its start. `TreeTime` says what is missed.
    """

    name = "estimate"
    energy_source = "estimate"

    def __init__(self, options: Options):
        self.options = options
        self.start_ns = time.monotonic_ns()
        self.tree = TreeTime(options.root_pid, {os.getpid()})
        self.discovered = time.monotonic()
        self.devices = [
            {
                "index": 0,
                "uuid": f"estimate:{options.node}",
                "name": "CPU time x declared watts",
                "kind": "estimate",
                "role": "job",
                "counter": "continuous",
            }
        ]
        self.capabilities = {"energy_counter": True}
        self.facts = {"estimate": {"w_per_core": options.watts_per_core, "idle_w": options.idle_watts}}

    def read(self) -> tuple[int, int, None]:
        """status, energy_mj, power_mw (never known)."""
        fresh = time.monotonic() - self.discovered >= DISCOVER_S
        if fresh:
            self.discovered = time.monotonic()
        cpu_s = self.tree.read(discover=fresh) * 1e-9
        elapsed_s = (time.monotonic_ns() - self.start_ns) * 1e-9
        joules = self.options.idle_watts * elapsed_s + self.options.watts_per_core * cpu_s
        return 0, round(joules * 1e3), None

    def lanes(self) -> list[LaneSpec]:
        columns = ("status", "energy_mj", "power_mw")
        return [LaneSpec("estimate", FAST, self.options.period_s, columns, {0: self.read})]

    def check(self) -> list[dict]:
        return []
