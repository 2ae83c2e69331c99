"""One rank of the calibration. It is a separate process, so that the device is empty before it and after it.

    python -m jouleline.measure.calibrate.rank JOB.json RANK

Rank 0 measures its device while the others sleep. Then all measure their links together. Rank 0 writes the entries to
FOLDER/entries.json.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from jouleline.files import write_json
from jouleline.measure.node import files
from jouleline.measure.node.ranks import die_with_parent

POLL_S = 0.05
# Shares of the time that is left once all ranks are ready: one timing (of some 45), one power state (of 4 or 5).
_SLOT_SHARE, _LOAD_SHARE = 0.012, 0.06
_LONGEST_SLOT_S, _LONGEST_LOAD_S, _SHORTEST_LOAD_S = 1.0, 5.0, 0.5


def main(job_file: str, rank: str) -> None:
    """Work as rank `rank` of the job.

    The job is a JSON object with folder, device, ranks, threads, parent (pid), timeout_s, budget_s and end_s. `end_s`
    is the time on CLOCK_MONOTONIC (s) by which all should be done. Half of the budget is granted in any case.
    """
    import torch

    from jouleline.measure.calibrate import links as calibrate_links
    from jouleline.measure.calibrate.device import Bench

    job, number = json.loads(Path(job_file).read_text(encoding="utf-8", errors="replace")), int(rank)
    die_with_parent(job["parent"])
    device = _take_device(job, number)
    folder = Path(job["folder"])
    files.ready_file(folder, number).touch()
    _wait_for([files.ready_file(folder, other) for other in range(job["ranks"])], job["timeout_s"])
    # Libraries may load slowly from a slow disk. This time remains anyway, because a curve of one point is no
    # calibration.
    left_s = max(job["end_s"] - time.monotonic(), job["budget_s"] / 2)
    slot_s = min(_SLOT_SHARE * left_s, _LONGEST_SLOT_S)
    load_s = min(max(_LOAD_SHARE * left_s, _SHORTEST_LOAD_S), _LONGEST_LOAD_S)
    entries: list[dict[str, Any]] = []
    if number == 0:
        bench = Bench(device, slot_s)
        bench.loads(load_s)
        entries += bench.measure()
        files.measured_file(folder).touch()
    else:
        _wait_for([files.measured_file(folder)], job["timeout_s"])
    if job["ranks"] > 1:
        _join(job, number, device)
        entries += calibrate_links.measure(device, slot_s)
        calibrate_links.wait_together(device, load_s)
        torch.distributed.destroy_process_group()
    else:
        entries += calibrate_links.without_links()
    if number == 0:
        write_json(files.entries_file(folder), {"device": _device_name(device), "entries": entries})


def _take_device(job: dict[str, Any], number: int):
    import torch

    if job["device"] == "cpu":
        torch.set_num_threads(job["threads"])
        return torch.device("cpu")
    from jouleline.measure.node import gpus

    gpus.require_cuda_torch()
    device = gpus.take(number)
    torch.zeros(1, device=device)  # makes the context here, not inside a measurement
    gpus.identify(number)
    return device


def _device_name(device) -> str | None:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _join(job: dict[str, Any], number: int, device) -> None:
    import torch.distributed as dist

    from jouleline.measure.node.process_group import enter

    store = dist.FileStore(str(files.store_file(Path(job["folder"]))), job["ranks"])
    enter(store, number, job["ranks"], device, job["timeout_s"])


def _wait_for(paths: list[Path], timeout_s: float) -> None:
    """Sleep until all `paths` are there. Waiting in a collective would load the devices that are measured."""
    until = time.monotonic() + timeout_s
    while not all(path.exists() for path in paths):
        if time.monotonic() > until:
            raise TimeoutError(f"the other ranks were not there within {timeout_s:g} s")
        time.sleep(POLL_S)


if __name__ == "__main__":
    os.environ["RANK"] = sys.argv[2]  # names the file of markers
    main(*sys.argv[1:])
