"""Worlds of several devices that follow one law, each unlike the others in more than their data sheets say."""

import numpy as np
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.roofline.fit import Roofline
from jouleline.model.table.runs import Columns

# Peak in FLOP/s, bandwidth in B/s, power limit in W of their data sheets (fp16).
DEVICES = {
    "NVIDIA A100-SXM4-80GB": (312e12, 2.039e12, 400.0),
    "NVIDIA H100-SXM5": (989e12, 3.35e12, 700.0),
    "Tesla V100-SXM2": (125e12, 0.9e12, 300.0),
    "Tesla T4": (65e12, 0.32e12, 70.0),
}


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


def world(seed: int = 0, spread: float = 0.1, strategies: tuple = synthetic.SINGLE) -> Columns:
    """Forty runs on each of four devices."""
    parts = []
    for place, device in enumerate(DEVICES):
        number = 10 * seed + place
        truth = like(device, number, spread)
        rows = synthetic.table(40, seed=number, device=device, truth=truth, strategies=strategies)
        parts.append(rows | {"precision": np.full(40, "fp16", dtype=object)})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["run_id"] = np.array([f"run-{row:03d}" for row in range(160)], dtype=object)
    return columns


def few_shot_errors(
    columns: Columns, device: str, shots: tuple[int, ...], draws: int
) -> dict[int, np.ndarray]:
    """MAPE of energy on a device from its sheet and the other devices' runs, by number of its own runs: [draws] (of
    none one)."""
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
