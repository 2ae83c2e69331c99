"""The agent of a node: it starts the sidecar and the ranks, watches them, and leaves three whole files.

The order on a node: imports; meeting of the agents; ranks load their data and build their model on the CPU; device
lock, if any; cool-down; sidecar with its idle baseline; training; second idle baseline; end. Node 0 then merges the
measurements of the nodes. It writes samples.parquet, markers.parquet and, last, run.json into the run's folder. A run
without value leaves run.failed.json and its raw measurement instead.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jouleline.campaign.strategy import require
from jouleline.files import write_json
from jouleline.measure.node import gpus
from jouleline.measure.node.agent import NodeAgent
from jouleline.measure.node.environment import choose_device, cool_down, describe
from jouleline.measure.node.files import (
    go_file,
    markers_folder,
    merged_folder,
    prepared_file,
    sidecar_log,
    training_file,
)
from jouleline.measure.node.outcome import Outcome
from jouleline.measure.raw.markers import ENVIRONMENT
from jouleline.measure.raw.proc import age_s
from jouleline.measure.sidecar.client import Sidecar, options_of
from jouleline.measure.train.corpus import read_facts
from jouleline.measure.train.record import RunRequest, merge, record
from jouleline.measure.train.rules import LONGEST_TICK_S


class RunAgent(NodeAgent):
    """One node's part of one run. `run` returns the exit code: 0 where the run is ok or out of memory."""

    def __init__(self, request: RunRequest):
        timeout_s = request.protocol["startup_timeout_s"]
        super().__init__(f"run {request.run_id}", request.out_dir / "raw", request.place, timeout_s)
        self.request = request
        self.started, self.began = time.time(), time.monotonic()
        self.sidecar: Sidecar | None = None

    def steps(self) -> Sequence[Callable[[], None]]:
        """Train beside the sidecar. No device is touched before the lock, because another run may be measuring."""
        return (
            self._check_input,
            self._import_libraries,
            self._start_ranks,
            self._until_prepared,
            self.take_device,
            self._cool_down,
            self._start_sidecar,
            self._train,
        )

    def conclude(self, outcome: Outcome, states: list[dict[str, Any]]) -> int:
        """Merge the nodes' measurements into the run's files."""
        out, merged = self.request.out_dir, merged_folder(self.raw)
        outcome, measured = merge(self.raw, merged, outcome, states)
        document = self._record(outcome, states, measured, self._environment(outcome))
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

    def _environment(self, outcome: Outcome) -> dict[str, Any]:
        """The environment of this node: the variables that it found and those that it set."""
        found = describe(self.device, outcome.found)
        return {**found, "variables": self.variables | found["variables"]}

    def keep(self, outcome: Outcome) -> None:
        """Write the sidecar's samples, and run.failed.json."""
        self.close(outcome)
        if self.place.node == 0:
            document = self._record(outcome, [self.state], [], {"host": self.state["host"]})
            write_json(self.request.out_dir / "run.failed.json", document)

    def release(self) -> None:
        """End the sidecar."""
        if self.sidecar and not self.sidecar.died:
            self.sidecar.terminate()

    def clear(self) -> None:
        """Remove what an earlier attempt left, with its results."""
        super().clear()
        if self.place.node == 0:
            for name in ("run.json", "samples.parquet", "markers.parquet"):
                (self.request.out_dir / name).unlink(missing_ok=True)

    def _record(self, outcome: Outcome, states: list, measured: list, environment: dict) -> dict[str, Any]:
        wall_s = time.monotonic() - self.began  # somebody may set the wall clock meanwhile
        return record(
            self.request, outcome, states, measured, environment, self.started, wall_s, self.times_s
        )

    def _check_input(self) -> None:
        request = self.request
        self.times_s["python"] = round(age_s(), 3)
        self.device = choose_device(request.protocol["device"])
        require(request.row, self.device)
        read_facts(request.dataset, request.row)
        self.clear()
        if self.device == "cuda":
            gpus.take_gpus(request.row)

    def _import_libraries(self) -> None:
        """Import once for all ranks, which are forks."""
        # Else DeepSpeed would look for a device itself and warn, or use what is left over from other work.
        os.environ["DS_ACCELERATOR"] = self.device
        with self.importing(), self.timed("imports"):
            import jouleline.measure.train.rank  # noqa: F401
            from jouleline.measure.train.modeling import class_of

            class_of(self.request.row)  # imports its module
        if self.device == "cuda":
            gpus.require_cuda_torch()

    def _start_ranks(self) -> None:
        from jouleline.measure.train.rank import Job, run_rank

        request, meeting = self.request, self.meet()
        job = Job(
            request.row, request.protocol, request.dataset, self.folder, self.device, self.place.node, meeting
        )
        os.environ[ENVIRONMENT] = str(markers_folder(self.folder))
        self.start_ranks(partial(run_rank, job), meeting)

    def _until_prepared(self) -> None:
        """Wait until every rank has its data and model on the CPU."""
        files = [prepared_file(self.folder, local) for local in self.ranks.pids]
        self.until(lambda: all(file.exists() for file in files), "prepared")

    def _cool_down(self) -> None:
        with self.timed("cooldown"):
            self.state["cooldown"] = cool_down(self.request.protocol, self.device)

    def _start_sidecar(self) -> None:
        scratch = os.environ.get("SLURM_TMPDIR")
        if scratch:
            scratch = str(Path(scratch) / f"jouleline-{self.request.run_id}-{self.place.node}")
        options = options_of(self.request.protocol, scratch)
        with self.timed("sidecar"):
            self.sidecar = Sidecar(self.folder, options, sidecar_log(self.folder))
            ready = self.sidecar.wait_ready(self.timeout_s)
        write_json(go_file(self.folder), {"tick_s": _tick_s(ready)})

    def _train(self) -> None:
        self.until(lambda: training_file(self.folder).exists() or self.ended(), "training")
        self.until(self.ended)

    def close(self, outcome: Outcome) -> None:
        """Stop the sidecar: after its second idle baseline where the run is good, else at once."""
        if self.sidecar is None:
            return
        died = self.sidecar.died
        stop = self.sidecar.stop if outcome.status == "ok" else self.sidecar.terminate
        self.state["sidecar_exit"] = stop()
        if died or self.state["sidecar_exit"] != 0:
            self.state["sidecar_died"] = True


def _tick_s(ready: Mapping[str, Any]) -> float | None:
    """The longest time between two updates of this node's energy counters. None where no counter moves in ticks.

    NVML's counter moves every 20 to 100 ms, depending on the GPU. How often this one moves is known only after the run.
    So the longest time is assumed.
    """
    ticking = any(device.get("counter") == "ticking" for device in ready.get("devices", []))
    return LONGEST_TICK_S if ticking else None
