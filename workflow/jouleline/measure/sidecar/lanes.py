"""Sampling threads: absolute deadlines, no bursts. A stuck call on one device never stops the other devices."""

import threading
import time

from jouleline.measure.meters.base import LaneSpec
from jouleline.measure.raw.segments import Batch

# A sweep may use the first share of its period for each device, and the second for all devices together. Above this the
# period is doubled. Eight GPUs at 20 ms may use 1 ms each, which a busy H100 needs.
COST_SHARE, MOST_SHARE = 0.10, 0.40
COST_SWEEPS = 25
LONGEST_PERIOD_NS = 1_000_000_000
SETTLE_S = 0.005
# A lane that sleeps longer than this can be woken for its last reading. Waking costs more than sleeping.
LONG_SLEEP_S = 0.05
# How long the end waits for the last reading of a lane.
JOIN_S = 0.5
# A call that takes this long may be stuck. The watch then looks again soon.
LONG_CALL_S = 0.01
# A call that takes this long is stuck. It counts as stuck sooner where other devices wait for it.
STUCK_S = 1.0


class Lane(threading.Thread):
    """Calls its readers at absolute deadlines of CLOCK_MONOTONIC. Keeps (device, before_ns, after_ns, deadline_ns,
    values).

    The writer swaps `rows` for an empty list. Appending and swapping are single operations. So there is no lock, and a
    slow disk cannot delay a reading. Every line of the sweep counts: it runs fifty times a second for each of eight
    GPUs.
    """

    def __init__(self, spec: LaneSpec, events, targets: list[int] | None = None):
        super().__init__(name=f"lane-{spec.name}", daemon=True)
        self.spec = spec
        self.events = events
        self.period_ns = round(spec.period_s * 1e9)
        self.targets = list(spec.readers if targets is None else targets)
        self.rows: list[tuple] = []
        self.calling: int | None = None
        self.call_began_ns = 0
        self.told_ns = 0  # the start of the stuck call that was reported last
        self.ended = False
        self.woken = threading.Event()
        self.skipped = 0
        self._costs: list[int] = []

    def run(self) -> None:
        deadline = time.monotonic_ns()
        while not self.ended:
            began = time.monotonic_ns()
            self._sweep(deadline)
            now = time.monotonic_ns()
            self._weigh(now - began)
            deadline += self.period_ns
            if now > deadline:
                missed = (now - deadline) // self.period_ns + 1
                self.skipped += missed
                deadline += missed * self.period_ns
            if (wait_s := (deadline - time.monotonic_ns()) * 1e-9) > 0:
                self.woken.wait(wait_s) if wait_s > LONG_SLEEP_S else time.sleep(wait_s)
        # A reading that runs when the end comes is followed by one more.
        self._sweep(time.monotonic_ns())

    def _sweep(self, deadline: int) -> None:
        readers, clock, targets = self.spec.readers, time.monotonic_ns, self.targets
        for target in targets:
            if self.targets is not targets and target not in self.targets:
                continue
            read = readers[target]
            self.call_began_ns = before = clock()
            self.calling = target
            try:
                values = read()
            # A broken reader must not end the lane. The other devices are still read, and this one has a hole.
            except Exception as error:
                values = self._failed(target, error)
            after = clock()
            self.calling = None
            self.rows.append((target, before, after, deadline, values))

    def _failed(self, target: int, error: Exception) -> tuple[None, ...]:
        """The hole that a broken reader leaves. An event reports it."""
        call = self.spec.name
        self.events.add("call_failed", device=target, call=call, code=None, message=repr(error))
        return (None,) * len(self.spec.columns)

    def _weigh(self, cost_ns: int) -> None:
        """Double the period when the usual sweep costs more than its share. One slow sweep alone does not count."""
        self._costs.append(cost_ns)
        if len(self._costs) < COST_SWEEPS:
            return
        usual = sorted(self._costs)[COST_SWEEPS // 2]
        self._costs = []
        share = min(COST_SHARE * len(self.targets), MOST_SHARE)
        if usual > share * self.period_ns and self.period_ns < LONGEST_PERIOD_NS:
            self.period_ns = min(2 * self.period_ns, LONGEST_PERIOD_NS)
            self.events.add(
                "period_doubled",
                lane=self.spec.name,
                devices=list(self.targets),
                period_ms=self.period_ns * 1e-6,
                sweep_ms=round(usual * 1e-6, 3),
            )

    def take_rows(self) -> list[tuple]:
        """The rows since the last call.

        Wait SETTLE_S before you use them: the thread may be in the middle of an append.
        """
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

    def watch(self) -> bool:
        """Report a lane that hangs in a call, and give its other targets a new lane.

        Returns whether to look again soon: a call is long, or the new lane may meet the next stuck call. Else two stuck
        calls would cost the other devices twice the time between two looks.
        """
        soon = False
        for lane in list(self.lanes):
            # Read the clock first. A call that ends while this thread waits must not seem longer than it was.
            now_ns, stuck, began_ns = time.monotonic_ns(), lane.calling, lane.call_began_ns
            since_s = (now_ns - began_ns) * 1e-9
            if stuck is None or since_s < LONG_CALL_S or began_ns == lane.told_ns:
                continue
            alone = len(lane.targets) == 1
            soon |= not alone
            if since_s < (STUCK_S if alone else min(max(5 * lane.spec.period_s, 0.1), STUCK_S)):
                continue
            lane.told_ns = began_ns
            self.events.add("call_stuck", lane=lane.spec.name, device=stuck, after_ms=round(since_s * 1e3))
            if alone:
                continue
            others = [target for target in lane.targets if target != stuck]
            lane.targets = [stuck]
            fresh = Lane(lane.spec, self.events, others)
            fresh.period_ns = lane.period_ns
            self.lanes.append(fresh)
            fresh.start()
        return soon

    def take(self) -> list[Batch]:
        """What every lane has read since the last call."""
        taken = [Batch(lane.spec.lane, lane.spec.columns, lane.take_rows()) for lane in self.lanes]
        time.sleep(SETTLE_S)
        return [batch for batch in taken if batch.rows]

    def stop(self) -> None:
        """Read every lane once more and end the threads. A thread that hangs in a call is left behind."""
        for lane in self.lanes:
            lane.ended = True
            lane.woken.set()
        deadline = time.monotonic() + JOIN_S
        for lane in self.lanes:
            lane.join(max(deadline - time.monotonic(), 0.0))
