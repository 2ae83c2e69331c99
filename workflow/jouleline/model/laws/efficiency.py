"""Parallel efficiency and power ratio, and the identity that connects energy with both.

eta(N) = useful tokens/s on N devices / (N/N0 x tokens/s on N0), so eta(N0) = 1. rho(N) = power per device on N / power
per device on N0. Energy per token then obeys E(N)/E(N0) = rho(N)/eta(N) exactly.
"""

from dataclasses import dataclass

import numpy as np

from jouleline.model.features import Data

# The published curves: eta_TP(t) = Smax (1 - exp(-k t)) / t and eta_DP(n) = 1 / (1 + a n^b).
TP_SMAX, TP_K, DP_A, DP_B = 9.8, 0.76, 0.005, 1.266


@dataclass(frozen=True)
class Scaling:
    """Per row [R]: reference count N0, eta, rho and E/E0 per token. NaN where the family has no row at the table's
    N0."""

    reference: np.ndarray
    efficiency: np.ndarray
    power_ratio: np.ndarray
    energy_ratio: np.ndarray


def measured(data: Data) -> Scaling:
    """Efficiency from measured times and energies, relative to the mean of the family's rows at its smallest device
    count.

    It is known only after the run. A family without a run at the table's smallest count has no reference there.
    """
    if "scaling" not in data.memo:
        data.memo["scaling"] = _measured(data)
    return data.memo["scaling"]


def take(data: Data, rows: np.ndarray) -> Data:
    """The given rows (mask or indices), with the measured efficiency that they have in the whole table.

    The rows alone may lack the runs on their smallest device count, for example where a count or a strategy is held
    out.
    """
    part = data.take(rows)
    part.memo["scaling"] = Scaling(**{name: values[rows] for name, values in vars(measured(data)).items()})
    return part


def _measured(data: Data) -> Scaling:
    rate = data.tokens / data.step_time_s
    joule = data.step_energy_j / data.tokens
    smallest = np.full(data.families.max(initial=-1) + 1, np.inf)
    np.minimum.at(smallest, data.families, data.devices)
    first = data.devices == smallest[data.families]
    known = smallest == data.devices.min(initial=np.inf)
    reference = np.where(known, smallest, np.nan)[data.families]
    counts = np.bincount(data.families[first], minlength=len(known))

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(data.families[first], values[first], len(known))
        return np.where(known, sums / np.maximum(counts, 1), np.nan)[data.families]

    # Rates are averaged as time per token, and power as energy per time. So the identity holds for the means too.
    rate0, joule0 = 1 / mean(1 / rate), mean(joule)
    efficiency = rate / (data.devices / reference * rate0)
    power_ratio = (joule * rate / data.devices) / (joule0 * rate0 / reference)
    return Scaling(reference, efficiency, power_ratio, joule / joule0)


def published_tp(t: np.ndarray) -> np.ndarray:
    """The paper's eta_TP(t), not normalised: 5.22 at t = 1."""
    return TP_SMAX * (1 - np.exp(-TP_K * np.asarray(t, dtype=float))) / t


def published_dp(n: np.ndarray) -> np.ndarray:
    """The paper's eta_DP(n)."""
    return 1 / (1 + DP_A * np.asarray(n, dtype=float) ** DP_B)


def parametric(data: Data) -> np.ndarray:
    """The paper's eta_TP x eta_DP, divided by its value on one device. So eta(1) = 1. [R]"""
    tensor = published_tp(data.columns["tensor_parallel"]) / published_tp(1.0)
    return tensor * published_dp(data.columns["data_parallel"]) / published_dp(1.0)


def on_one_device(data: Data) -> Data:
    """The same workloads on a single device."""
    if "single" not in data.memo:
        data.memo["single"] = _on_one_device(data)
    return data.memo["single"]


def _on_one_device(data: Data) -> Data:
    ones = np.ones(len(data), dtype=np.int64)
    single = dict.fromkeys(
        ("device_count", "tensor_parallel", "data_parallel", "nodes", "gpus_per_node"), ones
    )
    rows = Data.of({**data.columns, **single, "zero_stage": ones * 0})
    rows.columns["tokens"] = rows.proxies["tokens_per_step"] * rows.steps
    return rows


def modelled(data: Data, step_time_s: np.ndarray, single: Data, single_time_s: np.ndarray) -> np.ndarray:
    """eta from the predicted step times of the rows and of the same workloads on one device (N0 = 1). [R]"""
    return (data.tokens / step_time_s) / (data.devices * single.tokens / single_time_s)
