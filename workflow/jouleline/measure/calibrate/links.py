"""What the links between devices can do, in ring bytes, as the communication proxy counts them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from jouleline.measure.calibrate.timing import blocks, from_times
from jouleline.measure.raw.markers import region
from jouleline.schemas.calibration import entry

KINDS = ("all_reduce", "all_gather", "reduce_scatter")
_SMALL_BYTE = 1 << 10
_LARGE_BYTE = {"cpu": 1 << 24, "cuda": 1 << 28}
_WAIT_BYTE = 1 << 20
# A payload that takes fewer latencies than this says little about the bandwidth.
_LEAST_LATENCIES = 4
_BLOCKS = 10


def without_links() -> Iterator[dict[str, Any]]:
    """The entries of a node with one device: nothing to measure."""
    for kind in KINDS:
        for name in ("bandwidth", "latency"):
            yield entry(f"link_{name}_{kind}", None, "one device: there is no link", nodes=1)


def measure(device: torch.device, slot_s: float, nodes: int = 1) -> Iterator[dict[str, Any]]:
    """Latency and bandwidth of each kind of collective over `nodes` nodes.

    The latency is that of a payload of 1 KiB. The bandwidth is the best of growing payloads, as large as `slot_s`
    seconds allow. All ranks call this together. With a payload of b bytes, a ring of n ranks sends 2 (n-1)/n b for an
    all-reduce and (n-1)/n b otherwise. The latency is subtracted before dividing.
    """
    ranks = dist.get_world_size()
    where = {"size": float(ranks), "nodes": nodes}
    for kind in KINDS:
        small = _times(kind, _SMALL_BYTE, device, slot_s)
        method = f"{dist.get_backend()}, {_SMALL_BYTE} bytes"
        yield from_times(f"link_latency_{kind}", 0, small, method, **where)
        latency_s, rates = float(np.median(small)), []
        for payload, times_s in _growing(kind, device, slot_s):
            sent = (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks * payload
            # The difference of two similar times is mostly noise. The largest payload is then the most reliable.
            plain = bool(np.median(times_s) >= _LEAST_LATENCIES * latency_s)
            # A time below the latency is noise. It must not give an unlimited bandwidth.
            times_s = np.maximum(times_s - latency_s, 0.5 * times_s)
            method = f"{dist.get_backend()}, {payload >> 20} MiB, ring bytes sent"
            rate = from_times(f"link_bandwidth_{kind}", sent, times_s, method, **where)
            rates.append((plain, rate["value"] if plain else payload, rate))
        yield max(rates, key=lambda rate: rate[:2])[2]


def _growing(kind: str, device: torch.device, slot_s: float) -> Iterator[tuple[int, np.ndarray]]:
    """(payload in bytes, seconds per call) of growing collectives."""
    payload = 1 << 20
    while payload <= _LARGE_BYTE[device.type]:
        times_s = _times(kind, payload, device, slot_s)
        yield payload, times_s
        # The next payload takes four times as long: over a slow link, longer than a slot.
        if _agree(slot_s / float(np.median(times_s)), device) < 4:
            return
        payload *= 4


def wait_together(device: torch.device, seconds: float) -> None:
    """Hold the communication-only power state on all ranks for about `seconds`."""
    once = float(np.median(_times("all_reduce", _WAIT_BYTE, device, 0.1)))
    run = _collective("all_reduce", _WAIT_BYTE, device)
    with region("active_wait_comm"):
        for _ in range(_agree(seconds / once, device)):
            run()


def _times(kind: str, payload: int, device: torch.device, slot_s: float) -> np.ndarray:
    """Seconds per call in blocks. All ranks make the same number of them. Rank 0 decides it from a first look."""
    run = _collective(kind, payload, device)
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    blocks(run, wait, 1, 2)
    once = float(blocks(run, wait, 1, 3)[0])
    return blocks(run, wait, _BLOCKS, _agree(slot_s / _BLOCKS / once, device))


def _agree(count: float, device: torch.device) -> int:
    """Rank 0's count, at least 1, on every rank."""
    shared = torch.tensor([max(int(count), 1)], device=device)
    dist.broadcast(shared, 0)
    return int(shared.item())


def _collective(kind: str, payload: int, device: torch.device) -> Callable[[], Any]:
    """The collective with a whole payload of `payload` bytes of fp32 zeros, shared in equal parts."""
    ranks = dist.get_world_size()
    part = torch.zeros(payload // 4 // ranks, device=device)
    whole = torch.zeros(part.numel() * ranks, device=device)
    return {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole),
    }[kind]
