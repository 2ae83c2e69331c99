"""Which candidates fit into the memory of their devices."""

from dataclasses import dataclass

import numpy as np

from jouleline.architecture.memory import peak_memory
from jouleline.choose.ask import Ask
from jouleline.choose.candidates import Columns
from jouleline.model.machine import Machines
from jouleline.units import GIB


@dataclass(frozen=True)
class Memory:
    """Peak memory of a device by candidate in GiB [K], a device's capacity (None: unknown), and which fit. Bool [K]."""

    peak_gib: np.ndarray
    capacity_gib: float | None

    @property
    def fits(self) -> np.ndarray:
        """Candidates whose peak, with its margin, is within the capacity. All where the capacity is unknown."""
        return (
            np.ones(len(self.peak_gib), bool)
            if self.capacity_gib is None
            else self.peak_gib <= self.capacity_gib
        )

    @property
    def words(self) -> str:
        """What was checked, in one sentence."""
        if self.capacity_gib is None:
            return "Memory is not checked: how much the device has is not known; give memory_gib."
        left_out = int((~self.fits).sum())
        if not left_out:
            return f"By the memory model, margin included, every candidate fits: {self.capacity_gib:g} GiB a device."
        share = f"{left_out} of {len(self.fits)} candidates are left out"
        return f"{share}: by the memory model, margin included, they need more than {self.capacity_gib:g} GiB a device."


def check(columns: Columns, ask: Ask, device: str | None) -> Memory:
    """The peak of every candidate, and the capacity: the ask's `memory_gib`, else that of the sheet of `device`."""
    capacity = ask.limits.get("memory_gib")
    sheet = Machines().get(device, "memory_capacity") if device else None
    if capacity is None and sheet is not None:
        capacity = sheet / GIB
    return Memory(peak_memory(columns)["peak"] / GIB, capacity)
