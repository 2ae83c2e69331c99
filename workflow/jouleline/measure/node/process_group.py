"""The process group of the ranks: where they meet, and the backend of their device."""

from datetime import timedelta

import torch
import torch.distributed as dist

from jouleline.measure.node.rendezvous import Meeting


def store_at(meeting: Meeting, rank: int, world_size: int, timeout_s: float) -> dist.TCPStore:
    """The store of all ranks. Rank 0 takes over the listening socket of its agent."""
    return dist.TCPStore(
        meeting.address,
        meeting.port,
        world_size,
        is_master=rank == 0,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=meeting.listen_fd if rank == 0 else None,
        wait_for_workers=False,
    )


def enter(store: dist.Store, rank: int, world_size: int, device: torch.device, timeout_s: float) -> str:
    """Enter the process group over `store`. Returns its backend: NCCL on GPUs, gloo on CPUs."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    bound = {"device_id": device} if device.type == "cuda" else {}
    limit = timedelta(seconds=timeout_s)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=limit, **bound)
    return backend
