"""Sampling threads: absolute deadlines, no bursts, and a stuck call on one device never stops the others."""

import threading
import time

from jouleline.measure.meters import LaneSpec

# A sweep may take this share of its period; above it the period is doubled.
COST_SHARE = 0.10
COST_SWEEPS = 25
LONGEST_PERIOD_S = 1.0
SETTLE_S = 0.005
# A lane that sleeps longer than this is not waited for at the end: it holds nothing.
JOIN_S = 0.1


class Lane(threading.Thread):
    """Reads its targets at absolute deadlines of CLOCK_MONOTONIC and keeps (device, t_us, call_us, late_us,
    values).

    `rows` is swapped for an empty list by the writer; appending and swapping are single operations, so no
    lock is held and a slow disk cannot delay a reading.
    """

    def __init__(self, spec: LaneSpec, events, targets: list[int] | None = None):
        super().__init__(name=f"lane-{spec.name}", daemon=True)
        self.spec = spec
        self.events = events
        self.period_s = spec.period_s
        self.targets = list(spec.targets if targets is None else targets)
        self.rows: list[tuple] = []
        self.calling: int | None = None
        self.call_began = 0.0
        self.ended = False
        self.skipped = 0
        self.sweeps = 0
        self._costs: list[float] = []

    def run(self) -> None:
        deadline = time.monotonic()
        while not self.ended:
            began = time.monotonic()
            self._sweep(deadline)
            now = time.monotonic()
            self._weigh(now - began)
            deadline += self.period_s
            if now > deadline:
                missed = int((now - deadline) / self.period_s) + 1
                self.skipped += missed
                deadline += missed * self.period_s
            if (wait := deadline - time.monotonic()) > 0:
                time.sleep(wait)

    def _sweep(self, deadline: float) -> None:
        read = self.spec.read
        for target in self.targets:
            if target not in self.targets:
                continue
            self.call_began = time.monotonic()
            self.calling = target
            before = time.monotonic_ns()
            try:
                values = read(target)
            # A reader that breaks must not end the lane: the other devices are still read, and this one has a
            # hole.
            except Exception as error:
                self.events.add(
                    "call_failed", device=target, call=self.spec.name, code=None, message=repr(error)
                )
                values = (None,) * len(self.spec.columns)
            after = time.monotonic_ns()
            self.calling = None
            late_us = max(int(before // 1000 - deadline * 1e6), 0)
            row = (target, before // 1000, (after - before) // 1000, late_us, values)
            self.rows.append(row)
        self.sweeps += 1

    def _weigh(self, cost_s: float) -> None:
        """Double the period when the usual sweep costs more than its share; one slow sweep alone does not
        count."""
        self._costs.append(cost_s)
        if len(self._costs) < COST_SWEEPS:
            return
        usual = sorted(self._costs)[COST_SWEEPS // 2]
        self._costs = []
        if usual > COST_SHARE * self.period_s and self.period_s < LONGEST_PERIOD_S:
            self.period_s = min(2 * self.period_s, LONGEST_PERIOD_S)
            self.events.add(
                "period_doubled",
                lane=self.spec.name,
                devices=list(self.targets),
                period_ms=self.period_s * 1e3,
                sweep_ms=round(usual * 1e3, 3),
            )

    def take_rows(self) -> list[tuple]:
        """The rows since the last call. Wait SETTLE_S before using them: the thread may be inside an
        append."""
        taken, self.rows = self.rows, []
        return taken


class Lanes:
    """All lanes of a meter, and the watch over stuck calls."""

    def __init__(self, specs: list[LaneSpec], events):
        self.events = events
        self.lanes = [Lane(spec, events) for spec in specs]

    def start(self) -> None:
        for lane in self.lanes:
            lane.start()

    def watch(self) -> None:
        """Give the other targets of a lane that hangs in a call a lane of their own. Call it every 50 ms or
        so."""
        for lane in list(self.lanes):
            stuck = lane.calling
            limit_s = min(max(5 * lane.spec.period_s, 0.1), 1.0)
            if stuck is None or time.monotonic() - lane.call_began < limit_s or len(lane.targets) == 1:
                continue
            others = [target for target in lane.targets if target != stuck]
            lane.targets = [stuck]
            self.events.add("call_stuck", lane=lane.spec.name, device=stuck, after_ms=round(limit_s * 1e3))
            fresh = Lane(lane.spec, self.events, others)
            fresh.period_s = lane.period_s
            self.lanes.append(fresh)
            fresh.start()

    def take(self) -> list[tuple[LaneSpec, list[tuple]]]:
        """(spec, rows) of every lane since the last call."""
        taken = [(lane.spec, lane.take_rows()) for lane in self.lanes]
        time.sleep(SETTLE_S)
        return [(spec, rows) for spec, rows in taken if rows]

    def stop(self) -> None:
        """End the threads; one that hangs in a call is left behind."""
        for lane in self.lanes:
            lane.ended = True
        for lane in self.lanes:
            if lane.calling is None and lane.period_s <= JOIN_S:
                lane.join(JOIN_S)
