"""Invented worlds. Devices follow one law, but each differs from the others in more than their data sheets say.

The worlds also have effects that the law does not have. The truth is known, so any number of them may be drawn.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.fit.fitting import fit_split
from jouleline.model.fit.predict import predict_split
from jouleline.model.judge.splits import split_runs
from jouleline.model.roofline.fit import Roofline
from jouleline.model.table.runs import Columns

# Peak in FLOP/s, bandwidth in B/s, power limit in W of their data sheets (fp16).
DEVICES = {
    "NVIDIA A100-SXM4-80GB": (312e12, 2.039e12, 400.0),
    "NVIDIA H100-SXM5": (989e12, 3.35e12, 700.0),
    "Tesla V100-SXM2": (125e12, 0.9e12, 300.0),
    "Tesla T4": (65e12, 0.32e12, 70.0),
    "NVIDIA L40S": (362e12, 0.864e12, 350.0),
    "NVIDIA B200": (2250e12, 8.0e12, 1000.0),
}
FOUR = tuple(DEVICES)[:4]
COUNTS = ((1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 1, 1), (6, 1, 1))
_AXES = ("layers", "hidden", "seq_len", "micro_batch")


def like(device: str, number: int, spread: float = 0.1) -> dict[str, float]:
    """The constants of a device: those of the data sheet, each off by a factor of its own (log sd `spread`)."""
    peak, memory, limit = (np.log(value) for value in DEVICES[device])
    factors = np.random.default_rng(number).normal(0, spread, 5)
    own = {
        "peak_flops": peak - 0.7,
        "memory_bandwidth": memory - 0.5,
        "static_power_w": limit - 1.3,
        "compute_energy_j_per_flop": limit - peak,
        "memory_energy_j_per_byte": limit - memory - 1.0,
    }
    return synthetic.TRUTH | {
        name: value + factor for (name, value), factor in zip(own.items(), factors, strict=True)
    }


def world(
    seed: int = 0,
    spread: float = 0.1,
    strategies: tuple = synthetic.SINGLE,
    devices: Sequence[str] = FOUR,
    rows: int = 40,
) -> Columns:
    """`rows` runs on each of some devices."""
    parts = []
    for place, device in enumerate(devices):
        number = 10 * seed + place
        truth = like(device, number, spread)
        made = {"device": device, "truth": truth, "strategies": strategies, "precision": "fp16"}
        parts.append(synthetic.table(rows, seed=number, **made))
    return together(parts)


def together(parts: Sequence[Columns]) -> Columns:
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return columns | {
        "run_id": np.array([f"run-{row:03d}" for row in range(len(columns["device"]))], dtype=object)
    }


PRECISIONS = {"fp32": 0.1, "bf16": 1.0, "fp16": 0.9}
"""Peak of a precision over that of the data sheet in fp16."""


def world_of_precisions(seed: int, spread: float = 0.1, rows: int = 14) -> tuple[Columns, dict]:
    """Three devices in three precisions each, and the calibration of their peaks, each off by a factor of its own."""
    rng, parts, calibrations = np.random.default_rng([seed, 3]), [], []
    for place, device in enumerate(FOUR[:3]):
        truth, peaks = like(device, 10 * seed + place, spread), []
        for number, (precision, share) in enumerate(PRECISIONS.items()):
            own = {
                "peak_flops": truth["peak_flops"] + np.log(share),
                "compute_energy_j_per_flop": truth["compute_energy_j_per_flop"]
                - np.log(share)
                + rng.normal(0, spread),
            }
            value = np.exp(own["peak_flops"] + 0.3 + rng.normal(0, spread))
            peaks.append({"quantity": "peak_flops", "value": value, "precision": precision})
            made = {"device": device, "truth": truth | own, "strategies": synthetic.SINGLE}
            code = 1000 * seed + 10 * place + number
            parts.append(synthetic.table(rows, seed=code, precision=precision, **made))
        calibrations.append({"device": device, "device_kind": "cuda", "quantities": peaks})
    return together(parts), {"devices": calibrations}


def disturbed(columns: Columns, seed: int, size: float = 0.03) -> Columns:
    """The same runs with effects on time and on power that no law here has, each of log sd `size`.

    The effects are: two axes together, the bend of one axis, a factor of each strategy on each device count, and an
    axis that matters more on one device, in one precision or under one strategy than elsewhere.
    """
    rng = np.random.default_rng([seed, 1])
    time, power = (np.exp(_effects(columns, rng, size)) for _ in range(2))
    return columns | {
        "time_s": columns["time_s"] * time,
        "energy_j": columns["energy_j"] * time * power,
        "mean_power_w": columns["mean_power_w"] * power,
    }


def _effects(columns: Columns, rng: np.random.Generator, size: float) -> np.ndarray:
    logs = np.column_stack([np.log(columns[name].astype(float)) for name in _AXES])
    axes = ((logs - logs.mean(axis=0)) / logs.std(axis=0)).T
    total = np.zeros(len(logs))
    for one, other in combinations(axes, 2):
        total += rng.normal(0, size) * np.tanh(one) * np.tanh(other)
    for axis in axes:
        total += rng.normal(0, size) * (axis**2 - 1) / 2
    placed = zip(*(columns[name].tolist() for name in ("tensor_parallel", "zero_stage", "device_count")))
    strategies = np.array(["-".join(map(str, one)) for one in placed], dtype=object)
    for label in sorted(set(strategies.tolist()) - {"1-0-1"}):
        total += rng.normal(0, size) * (strategies == label)
    for labels in (strategies, columns["device"], columns["precision"]):
        for label in sorted(set(labels.tolist())):
            slope = axes[rng.integers(len(_AXES))]
            total += rng.normal(0, size) * np.tanh(slope) * (labels == label)
    return total


OPTIONS = {"starts": 8, "bootstrap": 0, "profile": False, "inner_parts": 3}


def _device_world(seed: int, spread: float) -> Columns:
    return world(seed, spread, devices=tuple(DEVICES)[: 4 + seed % 3], rows=30)


_LEFT_OUT = {
    "count": ("H5", lambda seed: (synthetic.table(90, seed=seed, strategies=COUNTS), None)),
    "strategy": ("H4", lambda seed: (synthetic.table(90, seed=seed), None)),
    "size": ("H2", lambda seed: (synthetic.table(80, seed=seed, strategies=synthetic.SINGLE), None)),
    "large or small": (
        "H3",
        lambda seed: (synthetic.table(80, seed=seed, strategies=synthetic.SINGLE), None),
    ),
    "device": ("H6", lambda seed: (_device_world(seed, 0.1), None)),
    "precision": ("H7", world_of_precisions),
}
KINDS = tuple(_LEFT_OUT)


def held_out(kind: str, seed: int, size: float = 0.03) -> dict[str, np.ndarray]:
    """The predictions of the hybrid on the rows that one drawn fold of one drawn world leaves out."""
    split_name, make = _LEFT_OUT[kind]
    columns, calibration = make(seed)
    return predicted(disturbed(columns, seed, size), split_name, seed, calibration)


def unseen_device(seed: int, spread: float) -> dict[str, np.ndarray]:
    """The predictions of the hybrid on a device, from its data sheet and the runs of three to five other devices."""
    return predicted(_device_world(seed, spread), "H6", seed)


def predicted(columns: Columns, split_name: str, seed: int, calibration: dict | None = None):
    """The hybrid's predictions of one fold of a split: of H6 without runs of the device, or of H7 of a precision."""
    split = split_runs(columns, split_name, {"seed": seed})
    folds = split["folds"]
    if split_name == "H6":
        folds = [fold for fold in folds if fold["fold"].endswith("zero-shot")]
    if split_name == "H7":
        folds = [fold for fold in folds if fold["fold"] in PRECISIONS]
    fold = folds[np.random.default_rng([seed, 2]).integers(len(folds))]
    split = split | {"folds": [fold]}
    fit = fit_split(columns, split, "hybrid", calibration, OPTIONS)
    return predict_split(columns, split, fit)


def few_shot_errors(
    columns: Columns, device: str, shots: tuple[int, ...], draws: int
) -> dict[int, np.ndarray]:
    """MAPE of energy on a device, from its sheet and the runs of the other devices.

    The result is by number of its own runs: [draws] (without own runs one draw).
    """
    data, rng = Data.of(columns), np.random.default_rng(0)
    own = data.columns["device"] == device
    given = [(0, np.array([], dtype=int))]
    given += [(k, rng.permutation(np.flatnonzero(own))[:k]) for k in shots if k for _ in range(draws)]
    weights = np.array([~own for _ in given])
    for row, (_, runs) in zip(weights, given, strict=True):
        row[runs] = True
    context = Context(options={"starts": 8, "seed": 0})
    found: dict[int, list[float]] = {}
    for state, row, (k, _) in zip(
        Roofline().fit(data, weights.astype(float), context), weights, given, strict=True
    ):
        predicted = Roofline().predict(state, data, context)[0].step_energy_j
        rest = own & ~row
        found.setdefault(k, []).append(float(np.mean(np.abs(predicted / data.step_energy_j - 1)[rest])))
    return {k: np.array(errors) for k, errors in found.items()}
