"""Calibration of the links between nodes: one agent per node. Its ranks talk to each other as those of a row do.

Node 0 writes the result to one file. `collect_calibration` adds it to the calibration.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jouleline.files import write_json
from jouleline.measure.node import gpus
from jouleline.measure.node.agent import NodeAgent
from jouleline.measure.node.environment import take_devices
from jouleline.measure.node.outcome import Outcome
from jouleline.measure.node.place import Place

# The share of the time budget for one of at most 18 timings. Their first looks and the ends take the rest.
_SLOT_SHARE, _LONGEST_SLOT_S = 0.03, 1.0


class LinkAgent(NodeAgent):
    """One node's part of the link calibration that is written to `out`. `protocol` is complete. The timings take about
    `budget_s` seconds."""

    def __init__(self, protocol: Mapping[str, Any], budget_s: float, place: Place, out: Path):
        name = f"the link calibration of {place.nodes} nodes"
        super().__init__(name, out.with_suffix(".raw"), place, protocol["startup_timeout_s"])
        self.protocol, self.budget_s, self.out = protocol, budget_s, out
        self.begin = time.monotonic()

    def steps(self) -> Sequence[Callable[[], None]]:
        """Measure with the ranks of all nodes."""
        return self._check_input, self._measure

    def _check_input(self) -> None:
        self.device = take_devices(self.protocol, self.place.per_node)
        self.clear()

    def _measure(self) -> None:
        with self.importing():
            from jouleline.measure.calibrate.link_rank import LinkJob, run_link_rank

        if self.device == "cuda":
            gpus.require_cuda_torch()
        meeting = self.meet()
        self.take_device()
        threads, slot_s = (
            self.protocol["threads_per_device"],
            min(_SLOT_SHARE * self.budget_s, _LONGEST_SLOT_S),
        )
        job = LinkJob(self.place, meeting, self.folder, self.device, threads, slot_s, self.timeout_s)
        self.start_ranks(partial(run_link_rank, job), meeting)
        self.until(self.ended, "done", self.timeout_s + self.budget_s)

    def conclude(self, outcome: Outcome, states: list[dict[str, Any]]) -> int:
        """Write what rank 0 has measured, with the devices and hosts."""
        if outcome.status != "ok":
            return self.fail(outcome, "its logs are in")
        devices = {rank["device"] for state in states for rank in state["ranks"]}
        found = {
            **{"schema": 1, "device": " + ".join(sorted(devices)), "device_kind": self.device},
            **{"nodes": self.place.nodes, "devices_per_node": self.place.per_node},
            "hosts": [state["host"] for state in states],
            "duration_s": round(time.monotonic() - self.begin, 1),
            "quantities": outcome.ranks[0]["entries"],
        }
        write_json(self.out, found)
        shutil.rmtree(self.raw, ignore_errors=True)
        return 0
