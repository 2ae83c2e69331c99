"""The runs to measure next, for users with tables of their own: measured runs, candidates, and a count."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jouleline.architecture.memory import peak_memory
from jouleline.errors import UserError
from jouleline.model.features import Data
from jouleline.model.fit.configurations import planned_rows
from jouleline.model.fit.fitting import load
from jouleline.model.frugal import choose
from jouleline.model.machine import Machines
from jouleline.model.table.runs import Columns, take
from jouleline.units import GIB

_LENGTHS = ("steps", "samples", "tokens")
SUGGESTED = (
    *("order", "expected_time_s", "expected_energy_j", "expected_error_before", "expected_error_after"),
    "reason",
)
"""Columns that are added to the suggested candidates."""


def suggest(
    measured: Columns,
    raw: Columns,
    where: str,
    count: int,
    calibration: Mapping[str, Any] | None = None,
    memory_gib: float | None = None,
    targets: Data | None = None,
) -> tuple[Columns, np.ndarray]:
    """(the suggested candidates, best first, with SUGGESTED beside their columns; those that cannot fit in memory).

    `measured` is a complete runs table. `raw` has candidates as in `predict_table`. A candidate without a length is
    taken to run as long as the measured runs did (median). The second result is a mask of candidates that are left out:
    a device certainly holds more than `memory_gib`, or more than its data sheet says. `targets` are the rows that are
    to be known, where these are not the runs and candidates. Raises UserError for an impossible count, or where no
    candidate is left.
    """
    runs = load(measured)
    if not len(runs):
        raise UserError("the runs table has no usable rows; `jouleline next` needs runs, however few")
    rows = planned_rows(raw, sorted(set(runs.columns["device"].tolist())), where)
    too_large = _too_large(rows, memory_gib)
    kept = np.flatnonzero(~too_large)
    if not len(kept):
        raise UserError(f"{where}: no candidate fits in the memory of its device; give smaller ones")
    if not 1 <= count <= len(kept):
        raise UserError(
            f"{count} runs are asked for; {where} has {len(kept)} candidates, give 1 to {len(kept)}"
        )
    context = choose.context(calibration)
    state = choose.fitted(runs, context)
    rest = rows.take(kept)
    expected = choose.expect(rest, state, context)
    steps = rest.steps
    if not any(name in raw for name in _LENGTHS):
        steps = np.median(runs.columns["time_s"]) / expected.step_time_s
    joules = expected.step_energy_j * steps
    found = choose.measure_next(runs, rest, expected, joules, count, context, state, targets)
    chosen = take(raw, kept[[one.candidate for one in found]])
    chosen["order"] = np.arange(1, count + 1)
    duration_s = expected.step_time_s * steps
    for name, values in (
        ("expected_time_s", [duration_s[one.candidate] for one in found]),
        ("expected_energy_j", [one.energy_j for one in found]),
        ("expected_error_before", [one.error_before for one in found]),
        ("expected_error_after", [one.error_after for one in found]),
    ):
        chosen[name] = np.array([np.nan if value is None else value for value in values])
    chosen["reason"] = np.array([one.reason for one in found], dtype=object)
    return chosen, too_large


def _too_large(rows: Data, memory_gib: float | None) -> np.ndarray:
    """Rows of which a device would certainly hold more than it has. Bool [R]."""
    floor_byte = peak_memory(rows.columns)["floor"]
    names, index = rows.labels("device")
    machines = Machines()
    given = None if memory_gib is None else memory_gib * GIB
    sheets = [given or machines.get(name, "memory_capacity") or np.inf for name in names]
    on_cpu = np.array([memory_gib is None and machines.is_cpu(name) for name in names])[index]
    return ~on_cpu & (floor_byte > np.array(sheets)[index])
