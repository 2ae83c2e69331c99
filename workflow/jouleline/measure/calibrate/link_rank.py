"""One rank of a link calibration, from the fork to its result file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.distributed as dist

from jouleline.measure.calibrate import links
from jouleline.measure.node import gpus
from jouleline.measure.node.environment import cpu_name
from jouleline.measure.node.failures import run_and_tell
from jouleline.measure.node.files import result_file
from jouleline.measure.node.place import Place
from jouleline.measure.node.process_group import enter, store_at
from jouleline.measure.node.rendezvous import Meeting


@dataclass(frozen=True)
class LinkJob:
    """What all ranks of a node share. `folder` is the node's. One timing takes about `slot_s` seconds."""

    place: Place
    meeting: Meeting
    folder: Path
    device: str
    threads: int
    slot_s: float
    timeout_s: float


def run_link_rank(job: LinkJob, local_rank: int, _progress: TextIO) -> int:
    """Measure as one rank of `job`. Writes its result file and returns the exit code."""
    rank = job.place.node * job.place.per_node + local_rank
    result: dict[str, Any] = {"rank": rank, "host_rank": local_rank}
    path = result_file(job.folder, local_rank)
    return run_and_tell(path, result, lambda: _measure(job, rank, local_rank))


def _measure(job: LinkJob, rank: int, local_rank: int) -> dict[str, Any]:
    if job.device == "cpu":
        torch.set_num_threads(job.threads)
        device, name = torch.device("cpu"), cpu_name()
    else:
        device = gpus.take(local_rank)
        name = torch.cuda.get_device_name(device)
    world_size = job.place.nodes * job.place.per_node
    store = store_at(job.meeting, rank, world_size, job.timeout_s)
    enter(store, rank, world_size, device, job.timeout_s)
    entries = list(links.measure(device, job.slot_s, job.place.nodes))
    dist.barrier()
    return {"device": name, "entries": entries if rank == 0 else None}
