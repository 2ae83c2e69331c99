"""Words and marks for strategies, models and sources of energy. They are defined once, so that they agree."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from jouleline.report.canvas import SERIES

ENERGY_SOURCES = {
    "nvml_counter": "measured: NVML energy counter",
    "nvml_power": "measured: NVML power, integrated",
    "rapl": "measured: RAPL counters of the host",
    "estimate": "estimated from CPU time, not measured",
    "outside": "taken from an outside table",
}
ESTIMATED = "Energy is estimated, not measured"
PARTLY_ESTIMATED = "Some energies are estimated, not measured"

MODELS = {
    "roofline": "roofline (ours)",
    "hybrid": "hybrid (ours)",
    "paper": "paper law",
    "constant": "constant J per token",
    "flops": "FLOP only",
    "flops_linear": "FLOP only, linear",
    "six_nd": "6 × parameters × tokens",
    "device_seconds": "mean power × predicted time",
    "device_seconds_measured": "mean power × measured time",
    "tdp_time": "power limit × predicted time",
    "tdp_time_measured": "power limit × measured time",
    "power_law": "power law in raw hyper-parameters",
    "phi_one": "no dynamic energy (φ = 1)",
    "phi_zero": "no static power (φ = 0)",
}
_VARIANTS = ("roofline_", "phi_")
# This project's models first, then the paper's law, then baselines.
MODEL_ORDER = tuple(MODELS)


@dataclass(frozen=True)
class Strategy:
    """How a run was spread over devices: the name, series colour (see canvas) and matplotlib marker."""

    name: str
    colour: str
    marker: str


STRATEGIES = (
    Strategy("one device", SERIES[0], "o"),
    Strategy("data parallel", SERIES[5], "v"),
    Strategy("ZeRO-1", SERIES[1], "s"),
    Strategy("ZeRO-2", SERIES[4], "P"),
    Strategy("ZeRO-3", SERIES[2], "D"),
    Strategy("tensor parallel", SERIES[3], "^"),
    Strategy("tensor × data parallel", SERIES[6], "X"),
)
_BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


def strategy(run: Mapping[str, Any]) -> Strategy:
    """The strategy of a runs-table row."""
    devices, tensor = run.get("device_count") or 1, run.get("tensor_parallel") or 1
    if devices == 1:
        return _BY_NAME["one device"]
    if tensor > 1:
        return _BY_NAME["tensor parallel" if tensor == devices else "tensor × data parallel"]
    return _BY_NAME.get(f"ZeRO-{run.get('zero_stage') or 0}", _BY_NAME["data parallel"])


def model(name: str, efficiency_mode: str | None = None, post_run: bool = False) -> str:
    """A model, the mode of its efficiency η, and whether it needs the run: "paper law, η measured (post-run)"."""
    label = MODELS.get(name, name.replace("_", " "))
    if name.startswith("roofline_"):
        label = "roofline, " + name.removeprefix("roofline_").replace("_", " ")
    if efficiency_mode:
        label += f", η {efficiency_mode}"
    return f"{label} (post-run)" if post_run else label


def is_variant(name: str) -> bool:
    """Whether a model is the roofline with a term switched off. Tables show it, but it is no rival."""
    return name.startswith(_VARIANTS)


def model_rank(name: str) -> tuple[int, str]:
    """Sort key: our models, the paper's law, then the others by name."""
    return (MODEL_ORDER.index(name) if name in MODEL_ORDER else len(MODEL_ORDER), name)


def source(name: str | None) -> str:
    """A source of energy in words."""
    return ENERGY_SOURCES.get(name, "unknown") if name else "unknown"


def estimate_notice(sources: Iterable[str | None]) -> str:
    """The notice that must accompany these energies: "" where none is estimated."""
    present = {name for name in sources if name}
    if "estimate" not in present:
        return ""
    return ESTIMATED if present == {"estimate"} else PARTLY_ESTIMATED


@dataclass(frozen=True)
class LegendEntry:
    """An item of a legend: trusted SVG of the mark, and its name."""

    name: str
    svg: Markup


# Outlines of the markers in a box from -6 to 6, as matplotlib draws them.
_SHAPES = {
    "o": '<circle r="4.6"/>',
    "s": '<path d="M-4-4H4V4H-4Z"/>',
    "D": '<path d="M0-5.6 5.6 0 0 5.6-5.6 0Z"/>',
    "^": '<path d="M0-5 5 5H-5Z"/>',
    "v": '<path d="M0 5 5-5H-5Z"/>',
    "P": '<path d="M-1.8-5.4H1.8V-1.8H5.4V1.8H1.8V5.4H-1.8V1.8H-5.4V-1.8H-1.8Z"/>',
    "X": '<path transform="rotate(45)" d="M-1.8-5.4H1.8V-1.8H5.4V1.8H1.8V5.4H-1.8V1.8H-5.4V-1.8H-1.8Z"/>',
}


def legend(present: Iterable[Strategy]) -> list[LegendEntry]:
    """Legend entries of the strategies present, in their fixed order."""
    chosen = set(present)
    entries = []
    for entry in STRATEGIES:
        if entry in chosen:
            number = SERIES.index(entry.colour) + 1
            shape = f'<svg viewBox="-7 -7 14 14" aria-hidden="true"><g style="fill: var(--series-{number})">'
            entries.append(LegendEntry(entry.name, Markup(shape + _SHAPES[entry.marker] + "</g></svg>")))
    return entries


def short(run: Mapping[str, Any]) -> str:
    """A run in a few words: "L4 d256 S128 B8, ZeRO-1 × 2"."""
    shape = " ".join(f"{letter}{run.get(key)}" for letter, key in _SHAPE)
    name = strategy(run).name
    count = run.get("device_count") or 1
    return f"{shape}, {name}" + (f" × {count}" if count > 1 else "")


_SHAPE = (("L", "layers"), ("d", "hidden"), ("S", "seq_len"), ("B", "micro_batch"))


# Parameters of the roofline law. A parameter of a device, precision or link has it in brackets.
_PARAMETERS = {
    "peak_flops": "achieved peak of matrix multiplication, F",
    "half_saturation_flop": "FLOP per launch at half of the peak, x_half",
    "attention_weight": "how many times attention's FLOP count beside others, w_a",
    "attention_padding": "how much of a tile's padding of heads attention pays for, g",
    "memory_bandwidth": "achieved memory bandwidth, BW",
    "compute_memory_exponent": "sharpness of the maximum of compute and memory time, p",
    "device_host_exponent": "sharpness of the maximum of device and host time, q",
    "host_fixed_s": "host time per forward pass, h0",
    "host_layer_s": "host time per layer and forward pass, hL",
    "collective_latency_s": "latency of one collective",
    "link_bandwidth": "achieved bandwidth of the link between devices",
    "overlap": "share of device time that communication can hide behind, w",
    "fixed_time_s": "time per run that no step accounts for, T_fixed",
    "contention": "exponent of slow-down by ranks that share a node",
    "static_power_w": "power of a device while it waits, P_s",
    "compute_energy_j_per_flop": "energy per FLOP, e_c",
    "memory_energy_j_per_byte": "energy per byte of memory traffic, e_m",
    "link_energy_j_per_byte": "energy per byte sent, e_x",
}


def parameter(name: str) -> str:
    """The meaning of a fitted parameter in words. A dash where its name says everything."""
    slot, _, group = name.partition("[")
    words = _PARAMETERS.get(slot)
    if words and group:
        return f"{words}: deviation of {group.rstrip(']')}"
    return words or "–"
