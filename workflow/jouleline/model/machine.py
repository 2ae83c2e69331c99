"""What is known of a device before any run: its calibration, or else its data sheet."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jouleline.units import GIB


class _Sheet(NamedTuple):
    """A device's data sheet.

    It holds the dense peak FLOP/s (fp32 without, bf16 and fp16 with tensor cores; tf32 has half the rate of bf16),
    memory B/s, link B/s per direction, the power limit in W, the memory in GiB (the sheet's GB, see `units`), and where
    the figures were seen. None: the figure is not known, or only the name can tell it ("A100-SXM4-80GB").
    """

    name: str
    fp32: float | None
    bf16: float | None
    fp16: float | None
    memory: float
    link: float
    power: float
    memory_gib: float | None
    source: str


# Pages of third parties that quote the vendor's data sheets, seen on 2026-11-28. A figure that none of them shows is
# marked.
_KLOCKWOOD = "https://glennklockwood.com/garden/processors"
_KUNWAR = "https://www.kunwar.page/chapter/appendix-d-hardware-reference"
_NVL = (
    "https://grokipedia.com/page/210100120 and https://gpu.blog/gpus/nvidia-h100-nvl; the link is on neither"
)
_A100_PCIE = (
    "https://www.thundercompute.com/blog/nvidia-a100-specs-full-guide, rates: "
    f"{_KLOCKWOOD}/A100; the link is that of its bridge to one other"
)
_L40S = "https://www.mullet.se/product.html?product_id=355414"
_T4 = "https://sysrqmts.com/en/gpus/nvidia/tesla/t4"
_4090 = (
    "https://waredb.com/processor/nvidia-geforce-rtx-4090, power limit: "
    "https://holynerdvana.blogspot.com/2022/10/nvidia-geforce-rtx-4090-specifications.html; the link is on neither"
)
_3090 = (
    "https://holynerdvana.blogspot.com/2022/10/nvidia-geforce-rtx-3090-specifications.html; tensor cores at half of "
    "its figure, which accumulates in fp16; the link is PCIe 4.0's, by "
    "https://hardwired.pbtech.co.nz/article/1843/nvidia-rtx-3090-pcie-40-and-12pin-power"
)
_2080 = (
    "https://gpu.spicedreamphone.com/ru/gpu/nvidia/geforce-rtx-2080-ti, power limit: "
    "https://www.nexthardware.com/news/nvidia-pronta-a-lanciare-anche-la-rtx-2080-ti-8600/; the rate of tensor cores "
    "is on neither"
)
# The first match wins, so longer names stand first. B200's memory is from docs.vultr.com. Klockwood's page has 192.
_SPECIFICATIONS = (
    _Sheet(r"\bB200", 80e12, 2250e12, 2250e12, 8.0e12, 900e9, 1000.0, 180, f"{_KLOCKWOOD}/B200"),
    _Sheet(r"\bH200", 67e12, 989e12, 989e12, 4.8e12, 450e9, 700.0, 141, _KUNWAR),
    _Sheet(r"H100.*NVL", None, None, None, 3.9e12, 300e9, 400.0, 94, _NVL),
    _Sheet(r"H100.*PCI", 51e12, 756e12, 756e12, 2.0e12, 300e9, 350.0, 80, _KUNWAR),
    _Sheet(r"H100", 67e12, 989e12, 989e12, 3.35e12, 450e9, 700.0, 80, f"{_KLOCKWOOD}/h100"),
    _Sheet(r"A100.*PCI.*40", 19.5e12, 312e12, 312e12, 1.555e12, 300e9, 250.0, 40, _A100_PCIE),
    _Sheet(r"A100.*PCI", 19.5e12, 312e12, 312e12, 1.935e12, 300e9, 300.0, None, _A100_PCIE),
    _Sheet(r"A100.*40", 19.5e12, 312e12, 312e12, 1.555e12, 300e9, 400.0, 40, f"{_KLOCKWOOD}/A100"),
    _Sheet(r"A100", 19.5e12, 312e12, 312e12, 2.039e12, 300e9, 400.0, None, f"{_KLOCKWOOD}/A100"),
    _Sheet(r"L40S", 91.6e12, 362e12, 362e12, 864e9, 32e9, 350.0, 48, _L40S),
    _Sheet(r"V100", 15.7e12, None, 125e12, 900e9, 150e9, 300.0, None, _KUNWAR),
    _Sheet(r"\bT4\b", 8.1e12, None, 65e12, 320e9, 16e9, 70.0, 16, _T4),
    _Sheet(r"RTX 4090", 82.6e12, 165e12, 165e12, 1008e9, 32e9, 450.0, 24, _4090),
    _Sheet(r"RTX 3090", 35.6e12, 71e12, 71e12, 936e9, 32e9, 350.0, 24, _3090),
    _Sheet(r"RTX 2080 Ti", 13.4e12, None, 53.8e12, 616e9, 16e9, 250.0, 11, _2080),
)

_CPU_NAME = re.compile(r"\b(cpu|epyc|xeon|ryzen|core|threadripper|neoverse|graviton)\b", re.IGNORECASE)


class Machines:
    """Known quantities by device name, in the units of the calibration table (FLOP/s, B/s, s, W).

    `calibrations` is a calibration.json, or {"devices": [...]} of several, or None. A measured quantity has precedence
    over the data sheet. A quantity that neither knows is None.
    """

    def __init__(self, calibrations: Mapping[str, Any] | None = None):
        listed = (calibrations or {}).get("devices") or ([calibrations] if calibrations else [])
        self._calibrated = {one["device"]: one for one in listed}
        self._content = json.dumps(listed, sort_keys=True, default=str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Machines) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def is_cpu(self, device: str) -> bool:
        kind = self._calibrated.get(device, {}).get("device_kind")
        return kind == "cpu" if kind else bool(_CPU_NAME.search(device))

    def names(self) -> list[str]:
        """The devices that are calibrated here, and those with a data sheet."""
        sheets = [re.sub(r"\\b|\.\*", " ", spec.name).strip() for spec in _SPECIFICATIONS]
        return [*self._calibrated, *sheets]

    def known(self, device: str) -> bool:
        """Whether anything is known of this device."""
        return device in self._calibrated or _specification(device) is not None

    def source(self, device: str) -> str | None:
        """Where the figures of the data sheet were seen. None for a device without a data sheet."""
        sheet = _specification(device)
        return sheet.source if sheet else None

    def calibrated(self, device: str) -> bool:
        return device in self._calibrated

    def get(self, device: str, quantity: str, precision: str | None = None, nodes: int = 1) -> float | None:
        """The measured value of a quantity (see `measured`), else the value of the data sheet."""
        value = self.measured(device, quantity, precision, nodes)
        return _data_sheet(device, quantity, precision) if value is None and nodes == 1 else value

    def measured(
        self, device: str, quantity: str, precision: str | None = None, nodes: int = 1
    ) -> float | None:
        """Median of the measurements of a quantity, of one precision where it depends on precision.

        For a link between `nodes` nodes, only measurements over the same number of nodes count.
        """
        entries = self._calibrated.get(device, {}).get("quantities", ())
        values = [
            entry["value"]
            for entry in entries
            if entry["quantity"] == quantity
            and entry.get("value") is not None
            and (precision is None or entry.get("precision") in (None, precision))
            and (entry.get("nodes") or 1) == nodes
        ]
        return float(np.median(values)) if values else None

    def first(
        self, device: str, quantities: tuple[str, ...], precision: str | None = None, nodes: int = 1
    ) -> float | None:
        """The first of several quantities with a known, positive value."""
        found = (self.get(device, quantity, precision, nodes) for quantity in quantities)
        return next((value for value in found if value is not None and value > 0), None)

    def calibrated_nodes(self, device: str) -> set[int]:
        """The numbers of nodes between which the links of this device were measured."""
        entries = self._calibrated.get(device, {}).get("quantities", ())
        spans = {entry.get("nodes") for entry in entries if entry.get("value") is not None}
        return {nodes for nodes in spans if nodes and nodes > 1}


def _specification(device: str) -> _Sheet | None:
    return next((spec for spec in _SPECIFICATIONS if re.search(spec.name, device, re.IGNORECASE)), None)


def _data_sheet(device: str, quantity: str, precision: str | None) -> float | None:
    sheet = _specification(device)
    if sheet is None:
        return None
    if quantity == "peak_flops":
        half = sheet.bf16 and sheet.bf16 / 2
        return {"fp32": sheet.fp32, "tf32": half, "bf16": sheet.bf16, "fp16": sheet.fp16}.get(
            precision or "fp32"
        )
    if quantity.startswith("link_bandwidth"):
        return sheet.link
    named = re.search(r"(\d+) ?GB\b", device)  # "Tesla V100-SXM2-16GB"
    memory_gib = float(named.group(1)) if named else sheet.memory_gib
    capacity = None if memory_gib is None else memory_gib * GIB
    known = {
        "memory_bandwidth_triad": sheet.memory,
        "power_limit_w": sheet.power,
        "memory_capacity": capacity,
    }
    return known.get(quantity)
