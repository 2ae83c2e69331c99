"""Rows that a user is considering: what they would take, emit and cost by a fitted model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.features import Data
from jouleline.model.machine import Machines
from jouleline.model.predict import Table, predict_rows
from jouleline.model.table import Columns, complete, read_columns

J_PER_KWH = 3.6e6

PLAN = {"price_per_kwh": None, "currency": "EUR", "grid_gco2_per_kwh": None, "pue": 1.0}
"""Price and carbon intensity of electricity; the power usage effectiveness multiplies cost and CO2 only."""


def predict_table(
    fit: Mapping[str, Any], raw: Columns, where: str, plan: Mapping[str, Any] | None = None
) -> Table:
    """The given columns and, beside them, time, energy, power, intervals, cost and CO2 of every row.

    `fit`: a fit.json of the split `all` (model.json); `raw`: columns of configurations. A row says how long it is by
    `steps`, `samples` or `tokens`; without any it is one step. Raises UserError for a model without a fit, a row that
    no run can have, or a device that neither the model nor a calibration nor a data sheet knows.
    """
    fold = _shipped(fit)
    columns = complete(_with_defaults(raw, fold), where, require_energy=False)
    rows = Data.of(columns)
    _set_steps(rows, raw)
    machines = Machines(fit.get("calibration"))
    unknown = set(columns["device"].tolist()) - set(fold["domain"]["categories"]["device"])
    strangers = sorted(device for device in unknown if not machines.known(device))
    if strangers:
        raise UserError(
            f"{where}: device {strangers[0]} is not in the model's data and has no calibration or data sheet; "
            f"measure on it, or use one of {', '.join(fold['domain']['categories']['device'])}"
        )
    table = next(part for part in predict_rows(fit, fold, rows) if not part["post_run"][0])
    return raw | _outcome(rows, table, PLAN | dict(plan or {}))


def _shipped(fit: Mapping[str, Any]) -> Mapping[str, Any]:
    if fit.get("split") != "all" or not fit.get("folds"):
        raise UserError(
            "this is no shipped model: give the fit of the split `all` (model.json of `jouleline fit`)"
        )
    fold = fit["folds"][0]
    if not fold["identified"]:
        raise UserError(f"the model is not identified ({fold['reason']}); fit it on more runs")
    return fold


def _with_defaults(raw: Columns, fold: Mapping[str, Any]) -> Columns:
    """Columns that a grid's row leaves out: the model's device, one device, no sharding, fp32."""
    count = len(next(iter(raw.values())))
    devices = fold["domain"]["categories"]["device"]
    filled = dict(raw)
    if "device" not in raw and len(devices) == 1:
        filled["device"] = np.full(count, devices[0], dtype=object)
    ones = np.ones(count, dtype=np.int64)
    if "device_count" not in raw:
        filled["device_count"] = np.asarray(raw.get("nodes", ones)) * np.asarray(
            raw.get("gpus_per_node", ones)
        )
    for name, value in (
        ("tensor_parallel", ones),
        ("zero_stage", 0 * ones),
        ("precision", np.full(count, "fp32", dtype=object)),
    ):
        filled.setdefault(name, value)
    return filled


def _set_steps(rows: Data, raw: Columns) -> None:
    """The number of steps from samples or tokens, where the rows say so instead of steps."""
    if "steps" in raw:
        return
    for name in ("samples", "tokens"):
        if name in raw:
            rows.columns["steps"] = np.maximum(raw[name].astype(float) / rows.proxies[f"{name}_per_step"], 1)
    for name in ("samples", "tokens"):
        rows.columns[name] = rows.proxies[f"{name}_per_step"] * rows.columns["steps"]


def _outcome(rows: Data, table: Table, plan: Mapping[str, Any]) -> Table:
    time, energy = table["predicted_time_s"].astype(float), table["predicted_energy_j"].astype(float)
    kwh = energy / J_PER_KWH * plan["pue"]
    outcome = {"steps": rows.columns["steps"], "predicted_time_s": time, "predicted_energy_j": energy}
    outcome["predicted_power_w"] = energy / time
    outcome["predicted_energy_per_token_j"] = energy / (rows.tokens * rows.steps)
    for target, unit in (("energy", "j"), ("time", "s")):
        for end in ("lo80", "hi80", "lo95", "hi95"):
            outcome[f"{target}_{end}_{unit}"] = table[f"{target}_{end}_{unit}"]
    if plan["price_per_kwh"] is not None:
        outcome[f"cost_{plan['currency'].lower()}"] = kwh * plan["price_per_kwh"]
    if plan["grid_gco2_per_kwh"] is not None:
        outcome["co2_g"] = kwh * plan["grid_gco2_per_kwh"]
    return outcome | {
        name: table[name] for name in ("extrapolates", "extrapolation_axes", "identified", "reason")
    }


def predict_file(
    fit: Mapping[str, Any], rows: str | Path, out: str | Path, plan: Mapping[str, Any] | None = None
) -> Table:
    """Predict a Parquet or CSV file of configurations into another; returns the table written."""
    table = predict_table(fit, read_columns(rows), str(rows), plan)
    write_columns(table, out)
    return table


def write_columns(table: Table, path: str | Path) -> None:
    """Write columns as CSV or Parquet by the name's ending, atomically; NaN becomes null."""
    import pyarrow as pa

    from jouleline.files import atomic_path

    arrays = {}
    for name, values in table.items():
        numbers = np.asarray(values).dtype.kind == "f"
        arrays[name] = pa.array(values, mask=~np.isfinite(values)) if numbers else pa.array(values)
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".csv":
            from pyarrow import csv

            csv.write_csv(pa.table(arrays), temporary)
        else:
            from pyarrow import parquet

            parquet.write_table(pa.table(arrays), temporary)
