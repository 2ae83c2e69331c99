"""The interface of a meter: what it reads, how often, and what is known about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

# Exit code of `--meter X` where the machine has no X.
NO_METER = 3

FAST, SLOW = 0, 1


@dataclass
class LaneSpec:
    """One task at a fixed period: call the reader of every device and keep the tuple that it returns.

    `columns` names the values of the tuple as columns of the samples table. `readers` are by index of the device.
    """

    name: str
    lane: int
    period_s: float
    columns: tuple[str, ...]
    readers: dict[int, Callable[[], tuple[Any, ...]]] = field(repr=False)


@dataclass
class Options:
    """What the meters are told: the measured processes, the period, the GPUs, and the watts of the estimate."""

    root_pid: int
    period_s: float
    node: str
    gpus: str = "auto"
    watts_per_core: float = 10.0
    idle_watts: float = 5.0


class Meter(Protocol):
    """A source of power or energy readings, as the sidecar uses it."""

    name: str
    # One of energy.verdict's sources: nvml_counter, nvml_power, rapl, estimate.
    energy_source: str
    # For the meta file, in index order.
    devices: list[dict[str, Any]]
    capabilities: dict[str, Any]
    facts: dict[str, Any]
    # Why no earlier meter of `auto` was taken. `open_meter` sets it.
    passed_over: list[str]

    def lanes(self) -> list[LaneSpec]:
        """What to read and how often."""

    def check(self) -> list[dict[str, Any]]:
        """Called once a second by the main thread. Returns events."""
