"""Which GPUs belong to this job. A GPU is identified by its UUID, because an index depends on who counts.

CUDA_VISIBLE_DEVICES may hold integers, UUIDs, unique prefixes of UUIDs and MIG names. Integers count in CUDA's order.
This is the order of the PCI bus only with CUDA_DEVICE_ORDER=PCI_BUS_ID, or when all GPUs are of one kind. A GPU that
does not answer may be counted or not. So only the numbers before it are certain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jouleline.errors import UserError


@dataclass
class Gpu:
    """A GPU as NVML lists it. `index` is NVML's. `bus_id` and `handle` are None where the device did not answer."""

    index: int
    uuid: str
    name: str
    bus_id: str | None
    mig: list[str] = field(default_factory=list)
    handle: Any = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Chosen:
    """A GPU of the job, and the job's MIG slices of it (empty: the whole device)."""

    gpu: Gpu
    slices: list[str] = field(default_factory=list)


def choose(asked: str, environment: Mapping[str, str], gpus: Sequence[Gpu]) -> list[Chosen]:
    """The job's GPUs. `asked` is "auto" (CUDA_VISIBLE_DEVICES; all where it is unset) or names separated by commas.

    Raises UserError that lists the GPUs where a name is unknown, ambiguous or repeated.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES") if asked == "auto" else asked
    source = "CUDA_VISIBLE_DEVICES" if asked == "auto" else "--gpus"
    if visible is None:
        return [Chosen(gpu) for gpu in gpus]
    order = _cuda_order(gpus, environment, source)
    chosen: dict[int, Chosen] = {}
    for name in (part.strip() for part in visible.split(",")):
        # For CUDA, -1 hides all devices that follow it, and an empty list means no device.
        if name in ("", "-1", "NoDevFiles"):
            break
        gpu, mig = _find(name, gpus, order, source)
        known = chosen.get(gpu.index)
        if known and (mig is None or mig in known.slices or not known.slices):
            raise UserError(f"{source} names {name} twice; name each GPU once")
        entry = chosen.setdefault(gpu.index, Chosen(gpu))
        entry.slices += [mig] if mig else []
    return list(chosen.values())


def _cuda_order(gpus: Sequence[Gpu], environment: Mapping[str, str], source: str) -> list[Gpu] | None:
    """The GPUs whose number is certain, in CUDA's order. None where no number is certain: different GPUs are ordered
    by speed."""
    by_index = sorted(gpus, key=lambda gpu: gpu.index)
    if source == "--gpus":
        return by_index
    answered = [gpu for gpu in by_index if gpu.bus_id is not None]
    same = len({gpu.name for gpu in answered}) <= 1
    if not same and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return None
    by_bus = sorted(answered, key=lambda gpu: gpu.bus_id.lower())
    silent = _silent(gpus)
    if silent is None:
        return by_bus
    # The driver's order is that of the bus here, so the place of the silent GPU in it is known.
    along_bus = [gpu.index for gpu in by_bus] == [gpu.index for gpu in answered]
    return [gpu for gpu in by_index if gpu.index < silent.index] if along_bus else []


def _silent(gpus: Sequence[Gpu]) -> Gpu | None:
    """The first GPU that did not say where it is on the bus."""
    return min((gpu for gpu in gpus if gpu.bus_id is None), key=lambda gpu: gpu.index, default=None)


def _find(name: str, gpus: Sequence[Gpu], order: list[Gpu] | None, source: str) -> tuple[Gpu, str | None]:
    there = ", ".join(f"{gpu.index} {gpu.uuid} ({gpu.name})" for gpu in gpus) or "none"
    if name.isdigit():
        if order is None:
            raise UserError(
                f"{source}={name}: the GPUs differ, so CUDA's numbers are not the driver's; "
                "set CUDA_DEVICE_ORDER=PCI_BUS_ID or use UUIDs"
            )
        if source == "--gpus":
            order = {gpu.index: gpu for gpu in gpus}
        else:
            order = dict(enumerate(order))
        if int(name) in order:
            return order[int(name)], None
        if source != "--gpus" and (silent := _silent(gpus)):
            raise UserError(
                f"{source}={name}: the driver's GPU {silent.index} did not answer, so CUDA's numbers from there on "
                f"are not certain; use UUIDs; there are: {there}"
            )
        raise UserError(f"{source} names GPU {name}, which is not there; there are: {there}")
    if name.startswith("MIG-"):
        return _find_slice(name, gpus, source, there)
    found = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
    if len(found) == 1:
        return found[0], None
    problem = "fits more than one GPU" if found else "is not there"
    raise UserError(f"{source} names GPU {name}, which {problem}; there are: {there}")


def _find_slice(name: str, gpus: Sequence[Gpu], source: str, there: str) -> tuple[Gpu, str]:
    """A MIG slice: MIG-<uuid> or a prefix of it, or the older MIG-GPU-<uuid>/<gpu instance>/<compute instance>."""
    if name.startswith("MIG-GPU-"):
        parent = name[len("MIG-") :].split("/")[0]
        for gpu in gpus:
            if gpu.uuid == parent:
                return gpu, name
    found = [(gpu, slice_) for gpu in gpus for slice_ in gpu.mig if slice_.startswith(name)]
    if len(found) == 1:
        return found[0]
    raise UserError(f"{source} names MIG device {name}, which is not there; there are: {there}")
