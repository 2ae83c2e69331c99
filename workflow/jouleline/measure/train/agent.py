"""The node agent: one per node, starts the sidecar and the ranks, watches them, and leaves three whole files.

Order on a node: imports, meeting of the agents, ranks that load their data and build their model on the CPU, the
device lock where there is one, cool-down, sidecar with its idle baseline, training, sidecar's idle baseline after,
end. Node 0 then merges what the nodes measured and writes samples.parquet, markers.parquet and, last, run.json into
the run's folder. A run that is worth nothing leaves run.failed.json and its raw measurement instead.
"""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jouleline.campaign.strategy import require
from jouleline.files import write_json
from jouleline.measure.node import gpus
from jouleline.measure.node.agent import NodeAgent
from jouleline.measure.node.environment import choose_device, cool_down, describe
from jouleline.measure.node.failures import oom_kills
from jouleline.measure.node.outcome import Outcome
from jouleline.measure.node.ranks import go_file, prepared_file
from jouleline.measure.raw.markers import ENVIRONMENT
from jouleline.measure.raw.proc import age_s
from jouleline.measure.sidecar.client import Sidecar, options_of
from jouleline.measure.train.corpus import read_facts
from jouleline.measure.train.record import Order, merge, record
from jouleline.measure.train.rules import LONGEST_TICK_S


class RunAgent(NodeAgent):
    """One node's part of one run; `run` returns the exit code: 0 where the run is ok or out of memory."""

    def __init__(self, order: Order):
        timeout_s = order.protocol["startup_timeout_s"]
        super().__init__(f"run {order.run_id}", order.out_dir / "raw", order.place, timeout_s)
        self.order = order
        self.started = time.time()
        self.sidecar: Sidecar | None = None

    def work(self) -> Outcome:
        """Train beside the sidecar. Raises UserError."""
        order = self.order
        self.times_s["python"] = round(age_s(), 3)
        self.device = choose_device(order.protocol["device"])
        require(order.row, self.device)
        read_facts(order.dataset, order.row)
        self.clear()
        if self.device == "cuda":
            gpus.take_gpus(order.row)
        # DeepSpeed would look for a device by itself, and warn.
        os.environ.setdefault("DS_ACCELERATOR", self.device)
        with self.timed("imports"):
            from jouleline.measure.train.rank import Job, run_rank
        if self.device == "cuda":
            gpus.require_cuda_torch()
        meeting = self.meet()
        job = Job(
            order.row, order.protocol, order.dataset, self.folder, self.device, self.place.node, meeting
        )
        os.environ[ENVIRONMENT] = str(self.folder / "markers")
        self.kills = oom_kills()
        self.ranks.start(self.place.per_node, partial(run_rank, job))
        if meeting.listen_fd is not None:
            os.close(meeting.listen_fd)
        # Until it has the lock it may run beside another measurement: no device has been touched.
        outcome = self.until(self._prepared, "prepared") or self.take_device() or self._train()
        self._end_sidecar(outcome)
        self.lock.release()
        return outcome

    def conclude(self, outcome: Outcome, states: list[dict[str, Any]]) -> int:
        """Merge the nodes' measurements into the run's files."""
        out, merged = self.order.out_dir, self.raw / "merged"
        outcome, measured = merge(self.raw, merged, outcome, states)
        document = self._record(outcome, states, measured, describe(self.device, outcome.found))
        if outcome.status == "failed":
            shutil.rmtree(merged, ignore_errors=True)
            write_json(out / "run.failed.json", document)
            return self.fail(outcome, "the raw measurement is kept in")
        for name in ("samples.parquet", "markers.parquet"):
            os.replace(merged / name, out / name)
        write_json(out / "run.json", document)
        (out / "run.failed.json").unlink(missing_ok=True)
        shutil.rmtree(self.raw, ignore_errors=True)
        print(f"jouleline: {self.name} {outcome.status} in {document['wall_s']:.1f} s", file=sys.stderr)
        return 0

    def keep(self, outcome: Outcome) -> None:
        """The sidecar's samples, and run.failed.json."""
        self._end_sidecar(outcome)
        if self.place.node == 0:
            document = self._record(outcome, [self.state], [], {"host": self.state["host"]})
            write_json(self.order.out_dir / "run.failed.json", document)

    def release(self) -> None:
        """End the sidecar."""
        if self.sidecar and not self.sidecar.died:
            self.sidecar.terminate()

    def clear(self) -> None:
        """Remove what an earlier attempt left, results included."""
        super().clear()
        if self.place.node == 0:
            for name in ("run.json", "samples.parquet", "markers.parquet"):
                (self.order.out_dir / name).unlink(missing_ok=True)

    def _record(self, outcome: Outcome, states: list, measured: list, environment: dict) -> dict[str, Any]:
        return record(self.order, outcome, states, measured, environment, self.started, self.times_s)

    def _train(self) -> Outcome:
        with self.timed("cooldown"):
            self.state["cooldown"] = cool_down(self.order.protocol, self.device)
        with self.timed("sidecar"):
            tick_s = _tick_s(self._start_sidecar())
        write_json(go_file(self.folder), {"tick_s": tick_s})

        def begun() -> bool:
            return (self.folder / "training").exists() or self.ended()

        return self.until(begun, "training") or self.until(self.ended) or self.of_ranks()

    def _prepared(self) -> bool:
        """Whether every rank has its data and model on the CPU."""
        return all(prepared_file(self.folder, local).exists() for local in self.ranks.pids)

    def _start_sidecar(self) -> Mapping[str, Any]:
        scratch = os.environ.get("SLURM_TMPDIR")
        if scratch:
            scratch = str(Path(scratch) / f"jouleline-{self.order.run_id}-{self.place.node}")
        options = options_of(self.order.protocol, scratch)
        self.sidecar = Sidecar(self.folder, options, self.folder / "sidecar.log")
        return self.sidecar.wait_ready(self.timeout_s)

    def _end_sidecar(self, outcome: Outcome) -> None:
        """Stop the sidecar: with its idle baseline where the run is good, at once where it is not."""
        if self.sidecar is None:
            return
        died = self.sidecar.died
        stop = self.sidecar.stop if outcome.status == "ok" else self.sidecar.terminate
        self.state["sidecar_exit"] = stop()
        if died or self.state["sidecar_exit"] != 0:
            self.state["sidecar_died"] = True


def _tick_s(ready: Mapping[str, Any]) -> float | None:
    """The longest time between two updates of this node's energy counters; None where none moves in ticks.

    NVML's counter moves every 20 to 100 ms, depending on the GPU. How often this one does is known only after the
    run, so the longest is taken.
    """
    ticking = any(device.get("counter") == "ticking" for device in ready.get("devices", []))
    return LONGEST_TICK_S if ticking else None
