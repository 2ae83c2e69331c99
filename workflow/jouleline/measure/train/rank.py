"""One rank, from the fork to its result file."""

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.distributed as dist

from jouleline.campaign.strategy import device_count
from jouleline.files import read_json
from jouleline.measure.node import gpus
from jouleline.measure.node.failures import run_and_tell
from jouleline.measure.node.files import go_file, prepared_file, result_file, training_file
from jouleline.measure.node.process_group import store_at
from jouleline.measure.node.rendezvous import Meeting
from jouleline.measure.train.data import read_dataset
from jouleline.measure.train.modeling import Recipe, build
from jouleline.measure.train.parallel import Layout, join
from jouleline.measure.train.trainer import Trainer

GO_POLL_S = 0.01


@dataclass(frozen=True)
class Job:
    """What all ranks of a node share. `folder` is the node's measurement directory."""

    row: dict[str, Any]
    protocol: dict[str, Any]
    dataset: Path
    folder: Path
    device: str
    node: int
    meeting: Meeting


def run_rank(job: Job, local_rank: int, progress: TextIO) -> int:
    """Train as one rank of `job`. Writes its result file and returns the exit code."""
    rank = job.node * job.row["gpus_per_node"] + local_rank
    result: dict[str, Any] = {"rank": rank, "host_rank": local_rank, "device_uuid": None}

    def body() -> dict[str, Any]:
        return _train(job, rank, local_rank, progress, result)

    return run_and_tell(result_file(job.folder, local_rank), result, body)


def _train(job: Job, rank: int, local_rank: int, progress: TextIO, result: dict[str, Any]) -> dict[str, Any]:
    # DeepSpeed uses old names of torch's collectives. One warning per rank and call has no use.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    startup_s = {}
    if job.device == "cpu":
        torch.set_num_threads(job.protocol["threads_per_device"])
    begin = time.perf_counter()
    data = read_dataset(job.dataset, job.row)
    startup_s["data"] = round(time.perf_counter() - begin, 3)
    begin = time.perf_counter()
    model = build(job.row, data.num_labels, data.facts["pad_id"], Recipe())
    startup_s["model"] = round(time.perf_counter() - begin, 3)
    prepared_file(job.folder, local_rank).touch()
    tick_s = _wait_for_device(job.folder)
    begin = time.perf_counter()
    world_size = device_count(job.row)
    device = gpus.take(local_rank) if job.device == "cuda" else torch.device("cpu")
    timeout_s = job.protocol["startup_timeout_s"]
    store = store_at(job.meeting, rank, world_size, timeout_s)
    join(rank, world_size, local_rank, store, device, timeout_s)
    result |= gpus.identify(local_rank) if job.device == "cuda" else {}
    startup_s["init"] = round(time.perf_counter() - begin, 3)
    layout = Layout(rank, world_size, job.row["tensor_parallel"])
    trainer = Trainer(
        job.row, job.protocol, data, layout, device, tick_s=tick_s, progress=progress, model=model
    )
    training_file(job.folder).touch()
    training = trainer.run()
    training["startup_s"] = {**startup_s, **trainer.startup_s}
    dist.barrier()
    used = {"cpus": len(os.sched_getaffinity(0)), "foreign_cores": trainer.foreign_cores}
    return {"training": training if local_rank == 0 else None, **used}


def _wait_for_device(folder: Path) -> float | None:
    """Wait until the agent says that the sidecar watches an idle device.

    Returns the meter's tick in seconds, if any.
    """
    go = go_file(folder)
    while not go.exists():
        time.sleep(GO_POLL_S)
    return read_json(go)["tick_s"]
