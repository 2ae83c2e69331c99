"""Predictions of held-out runs, one point per run, ready to plot or to list."""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from jouleline.report.inputs import Inputs, Row, Series, holdout, series_of
from jouleline.report.numbers import known

UNITS = {"energy": "J", "time": "s"}


@dataclass(frozen=True)
class Point:
    """One held-out run: measured and predicted value per token (J or s), bounds of the 95 % interval, and the run.

    Values are per token, because the protocol decides how long the measured window is. Windows of one length have
    similar energies.
    """

    run: Row
    measured: float
    predicted: float
    low95: float | None
    high95: float | None
    extrapolates: bool

    @property
    def error(self) -> float:
        """Predicted over measured, minus one (a fraction)."""
        return self.predicted / self.measured - 1


def points(inputs: Inputs, series: Series, split: str, target: str) -> list[Point]:
    """Held-out points of a series in a hold-out (see `inputs.holdout`).

    Several folds (seeds of a grouped split) may hold out the same run. It gives one point: the median over these folds
    of its prediction and of each bound. Left out are rows without a finite, positive measured and predicted value, and
    runs with an unknown number of tokens.
    """
    unit = {"energy": "j", "time": "s"}[target]
    by_run: dict[str, list[Row]] = {}
    for row in inputs.predictions:
        if holdout(row) == split and series_of(row) == series and _usable(row, target, unit):
            by_run.setdefault(row["run_id"], []).append(row)
    runs = inputs.by_id
    return [
        _point(runs[run_id], rows, target, unit)
        for run_id, rows in sorted(by_run.items())
        if runs.get(run_id, {}).get("tokens")
    ]


def _usable(row: Row, target: str, unit: str) -> bool:
    pair = row.get(f"{target}_{unit}"), row.get(f"predicted_{target}_{unit}")
    return row.get("identified") is not False and all(known(value) and value > 0 for value in pair)


def _point(run: Row, rows: list[Row], target: str, unit: str) -> Point:
    tokens = run["tokens"]
    low95, high95 = (_median(rows, f"{target}_{side}95_{unit}") for side in ("lo", "hi"))
    return Point(
        run=run,
        measured=rows[0][f"{target}_{unit}"] / tokens,
        predicted=median(row[f"predicted_{target}_{unit}"] for row in rows) / tokens,
        low95=None if low95 is None else low95 / tokens,
        high95=None if high95 is None else high95 / tokens,
        extrapolates=any(row.get("extrapolates") for row in rows),
    )


def _median(rows: list[Row], key: str) -> float | None:
    values: list[Any] = [row.get(key) for row in rows]
    present = [value for value in values if known(value)]
    return median(present) if present and len(present) == len(values) else None


def span(values: list[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis around positive `values`, at least half a decade apart."""
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max(0.08 * (high - low), (0.5 - (high - low)) / 2, 0.03)
    return 10 ** (low - pad), 10 ** (high + pad)
