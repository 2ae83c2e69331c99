"""Scaling efficiency of measured runs: how speed, power and energy change as one workload gets more devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from jouleline.report import labels
from jouleline.report.numbers import known


@dataclass(frozen=True)
class ScalingPoint:
    """One workload family, strategy and device count N, compared with N0, the smallest count measured of that family.

    `eta`, `rho` and `energy_ratio` are as in `model.laws.efficiency.measured`, over the `runs` replicates together.
    """

    family: str
    strategy: labels.Strategy
    devices: int
    reference: int
    eta: float
    rho: float
    energy_ratio: float
    runs: int


def scaling(runs: Sequence[Mapping[str, Any]]) -> list[ScalingPoint]:
    """Scaling points of every family that was measured on more than one device count. At N0 eta is 1."""
    from jouleline.model.features import Data
    from jouleline.model.laws.efficiency import measured
    from jouleline.model.table.runs import complete

    usable = [run for run in runs if _usable(run)]
    counts: dict[str, set[int]] = {}
    for run in usable:
        counts.setdefault(run["family"], set()).add(run["device_count"])
    usable = [run for run in usable if len(counts[run["family"]]) > 1]
    if not usable:
        return []
    columns = complete({name: [run.get(name) for run in usable] for name in usable[0]}, "the runs table")
    result = measured(Data.of(columns))
    ratios = zip(result.reference, result.efficiency, result.power_ratio, result.energy_ratio, strict=True)
    groups: dict[tuple, list] = {}
    for run, numbers in zip(usable, ratios, strict=True):
        if all(known(float(number)) for number in numbers):
            groups.setdefault((run["family"], run["device_count"], labels.strategy(run)), []).append(numbers)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][1], item[0][2].name))
    return [_point(*key, numbers) for key, numbers in ordered]


def _usable(run: Mapping[str, Any]) -> bool:
    sound = all(known(run.get(key)) and run[key] > 0 for key in ("tokens", "time_s", "energy_j", "steps"))
    return run.get("status") == "ok" and run.get("verdict") != "invalid" and bool(run.get("family")) and sound


def _point(family: str, devices: int, strategy: labels.Strategy, rows: list) -> ScalingPoint:
    """Replicates as one. Time and energy per token are averaged as in the reference, so at N0 both ratios are 1."""
    eta = 1 / mean(1 / float(row[1]) for row in rows)
    energy = mean(float(row[3]) for row in rows)
    return ScalingPoint(family, strategy, devices, int(rows[0][0]), eta, energy * eta, energy, len(rows))


def paper_data_parallel(devices: float) -> float:
    """The paper's eta_DP(n) divided by its value at 1."""
    from jouleline.model.laws.efficiency import published_dp

    return float(published_dp(devices) / published_dp(1))


def paper_tensor_parallel(devices: float) -> float:
    """The paper's eta_TP(t) divided by its value at 1. That value is 5.2, which is more than any efficiency can be."""
    from jouleline.model.laws.efficiency import published_tp

    return float(published_tp(devices) / published_tp(1))
