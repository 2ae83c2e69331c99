"""What is known of a device before any run: calibration measurements, else its data sheet."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

# Dense peak FLOP/s (fp32 without, bf16/fp16 with tensor cores), memory B/s, link B/s per direction, power limit W,
# memory B. None: not known, or the name must say it ("A100-SXM4-80GB"). The first match wins: longer names first.
# Rates: the vendors' figures, without a page kept for each. Memory: huggingface.co/hardware (H100, H200, L40S),
# docs.vultr.com (B200), gpu_specs.csv of huggingface.co/spaces/lambdabrendan (A100, RTX 3090), nvidia_gpu.csv of
# ohdoking/gpu_spec (RTX 4090), Google's table of its GPUs (T4), vassvik's table of 2019 (RTX 2080 Ti). H100 NVL:
# hawkvelt.id.au, aiminingco.com.
_SPECIFICATIONS = (
    (r"\bB200", 80e12, 2250e12, 2250e12, 8.0e12, 900e9, 1000.0, 180e9),
    (r"\bH200", 67e12, 989e12, 989e12, 4.8e12, 450e9, 700.0, 141e9),
    (r"H100.*NVL", None, None, None, 3.9e12, 300e9, 400.0, 94e9),
    (r"H100.*PCI", 51e12, 756e12, 756e12, 2.0e12, 300e9, 350.0, 80e9),
    (r"H100", 67e12, 989e12, 989e12, 3.35e12, 450e9, 700.0, 80e9),
    (r"A100.*40", 19.5e12, 312e12, 312e12, 1.555e12, 300e9, 400.0, 40e9),
    (r"A100", 19.5e12, 312e12, 312e12, 2.039e12, 300e9, 400.0, None),
    (r"L40S", 91.6e12, 362e12, 362e12, 864e9, 32e9, 350.0, 48e9),
    (r"V100", 15.7e12, None, 125e12, 900e9, 150e9, 300.0, None),
    (r"\bT4\b", 8.1e12, None, 65e12, 320e9, 16e9, 70.0, 16e9),
    (r"RTX 4090", 82.6e12, 165e12, 165e12, 1008e9, 32e9, 450.0, 24e9),
    (r"RTX 3090", 35.6e12, 71e12, 71e12, 936e9, 16e9, 350.0, 24e9),
    (r"RTX 2080 Ti", 13.4e12, None, 53.8e12, 616e9, 16e9, 250.0, 11e9),
)

_CPU_NAME = re.compile(r"\b(cpu|epyc|xeon|ryzen|core|threadripper|neoverse|graviton)\b", re.IGNORECASE)


class Machines:
    """Known quantities by device name, in the units of the calibration table (FLOP/s, B/s, s, W).

    `calibrations` is a calibration.json, or {"devices": [...]} of several, or None. A measured quantity goes
    before the data sheet; what neither knows is None.
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
        """Devices that are calibrated here, and those with a data sheet."""
        sheets = [re.sub(r"\\b|\.\*", " ", spec[0]).strip() for spec in _SPECIFICATIONS]
        return [*self._calibrated, *sheets]

    def known(self, device: str) -> bool:
        """Whether anything is known of this device."""
        return device in self._calibrated or _specification(device) is not None

    def calibrated(self, device: str) -> bool:
        return device in self._calibrated

    def get(self, device: str, quantity: str, precision: str | None = None, nodes: int = 1) -> float | None:
        """Median of the measurements of a quantity (of a precision where it has one), else the data sheet's.

        Of a link between `nodes` nodes only measurements over as many nodes say something.
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
        if values:
            return float(np.median(values))
        return _data_sheet(device, quantity, precision) if nodes == 1 else None

    def first(
        self, device: str, quantities: tuple[str, ...], precision: str | None = None, nodes: int = 1
    ) -> float | None:
        """The first of several quantities that is known and positive."""
        found = (self.get(device, quantity, precision, nodes) for quantity in quantities)
        return next((value for value in found if value is not None and value > 0), None)

    def calibrated_nodes(self, device: str) -> set[int]:
        """Numbers of nodes between which the links of this device were measured."""
        entries = self._calibrated.get(device, {}).get("quantities", ())
        spans = {entry.get("nodes") for entry in entries if entry.get("value") is not None}
        return {nodes for nodes in spans if nodes and nodes > 1}


def _specification(device: str) -> tuple | None:
    return next((spec for spec in _SPECIFICATIONS if re.search(spec[0], device, re.IGNORECASE)), None)


def _data_sheet(device: str, quantity: str, precision: str | None) -> float | None:
    spec = _specification(device)
    if spec is None:
        return None
    _, fp32, bf16, fp16, memory, link, power, capacity = spec
    if quantity == "peak_flops":
        return {"fp32": fp32, "bf16": bf16, "fp16": fp16}.get(precision or "fp32")
    if quantity.startswith("link_bandwidth"):
        return link
    named = re.search(r"(\d+) ?GB\b", device)  # "Tesla V100-SXM2-16GB"
    capacity = float(named.group(1)) * 1e9 if named else capacity
    known = {"memory_bandwidth_triad": memory, "power_limit_w": power, "memory_capacity": capacity}
    return known.get(quantity)
