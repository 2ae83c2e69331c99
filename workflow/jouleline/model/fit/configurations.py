"""Rows that a user considers: the time, energy, emissions and cost that a fitted model predicts for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.features import Data
from jouleline.model.fit.predict import Table, predict_rows
from jouleline.model.machine import Machines
from jouleline.model.roofline.law import SLOTS
from jouleline.model.table.checks import as_numbers, refuse
from jouleline.model.table.files import Columns, read_columns, write_columns
from jouleline.model.table.runs import complete

J_PER_KWH = 3.6e6

PLAN = {"price_per_kwh": None, "currency": "EUR", "grid_gco2_per_kwh": None, "pue": 1.0}
"""Price and carbon intensity of electricity. The power usage effectiveness multiplies only cost and CO2."""


def predict_table(
    fit: Mapping[str, Any], raw: Columns, where: str, plan: Mapping[str, Any] | None = None
) -> Table:
    """The given columns and, beside them, time, energy, power, intervals, cost and CO2 of every row.

    `fit` is a fit.json of the split `all` (model.json). `raw` has the columns of configurations. Each row gives its
    length by `steps`, `samples` or `tokens`. Without any of them it is one step. Raises UserError for a model without a
    fit or without a prediction before the run, for a row that no run can have, and for a device that is unknown to the
    model, to the calibration and to the data sheets.

    >>> from jouleline.model.fit.fitting import fit_split
    >>> from jouleline.model.judge.splits import split_runs
    >>> from jouleline.model.table.runs import complete
    >>> shape = {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 256, "micro_batch": 8, "precision": "fp32"}
    >>> placed = {"device": "A100", "device_count": 1, "tensor_parallel": 1, "zero_stage": 0}
    >>> columns = {name: np.full(4, value, dtype=object) for name, value in {**shape, **placed, "steps": 10}.items()}
    >>> columns |= {"seq_len": np.array([32, 64, 32, 64]), "time_s": np.array([1.0, 2.0, 1.0, 2.0])}
    >>> columns |= {"energy_j": np.array([256.0, 512.0, 256.0, 512.0]), "energy_source": np.full(4, "nvml_counter")}
    >>> runs = complete(columns, "an example")
    >>> fit = fit_split(runs, split_runs(runs, "all", {}), "constant", options={"bootstrap": 0, "profile": False})
    >>> asked = {name: np.array([value]) for name, value in shape.items()}
    >>> table = predict_table(fit, asked | {"seq_len": np.array([32]), "tokens": np.array([2560])}, "an example")
    >>> print(f"{table['steps'][0]:.0f} steps, {table['predicted_energy_j'][0]:.1f} J")
    10 steps, 256.0 J
    """
    plan = checked_plan(plan)
    fold, rows = configured(fit, raw, where)
    return raw | predicted(fit, fold, rows, plan)


def configured(fit: Mapping[str, Any], raw: Columns, where: str) -> tuple[Mapping[str, Any], Data]:
    """(the shipped fold of a fit, the rows that it predicts). Each row is as long as it says, see `predict_table`."""
    fold = shipped(fit)
    rows = planned_rows(raw, fold["domain"]["categories"]["device"], where)
    columns = rows.columns
    machines = Machines(fit.get("calibration"))
    unknown = set(columns["device"].tolist()) - set(fold["domain"]["categories"]["device"])
    strangers = sorted(device for device in unknown if not machines.known(device))
    if strangers:
        raise UserError(
            f"{where}: device {strangers[0]} is not in the model's data and has no calibration or data sheet; "
            f"measure on it, or use one of {', '.join(fold['domain']['categories']['device'])}"
        )
    return fold, rows


def planned_rows(raw: Columns, devices: list[str], where: str) -> Data:
    """Rows that are still to be run. Each is as long as it says, or one step where it says nothing.

    `devices` are the known ones. A single one is the default.
    """
    rows = Data.of(complete(_with_defaults(raw, devices, where), where, require_energy=False))
    _set_length(rows, where)
    return rows


def predicted(fit: Mapping[str, Any], fold: Mapping[str, Any], rows: Data, plan: Mapping[str, Any]) -> Table:
    """The columns that `predict_table` adds to the rows of `configured`."""
    table = next((part for part in predict_rows(fit, fold, rows) if not part["post_run"][0]), None)
    if table is None:
        raise UserError(
            f"the model {fit['model']} needs what is measured in the run, so it predicts none; "
            "give another (--models or --ship of `jouleline fit`)"
        )
    return _outcome(rows, table, plan)


def checked_plan(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """PLAN with the given values. Raises UserError for an impossible price, intensity or effectiveness."""
    plan = PLAN | dict(given or {})
    for name, low in (("price_per_kwh", 0), ("grid_gco2_per_kwh", 0), ("pue", 1)):
        if plan[name] is not None and not low <= plan[name] < np.inf:
            raise UserError(f"{name} is {plan[name]}; give a number of at least {low}")
    return plan


_PARTS = {"identified", "reason", "state", "parameters", "diagnostics", "domain", "intervals"}


def shipped(fit: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fold of a fit of the split `all`.

    Raises UserError for any other document, for a fit that is not identified, and for one whose law has other
    parameters than ours.
    """
    is_fit = isinstance(fit, Mapping) and {"model", "split", "folds", "options"} <= set(fit)
    fold = fit["folds"][0] if is_fit and isinstance(fit["folds"], list) and fit["folds"] else None
    whole = isinstance(fold, Mapping) and set(fold) >= _PARTS and isinstance(fit["model"], str)
    whole = whole and isinstance(fold["state"], Mapping)
    if not whole or fit["split"] != "all":
        raise UserError(
            "this is no shipped model: give the fit of the split `all` (model.json of `jouleline fit`)"
        )
    if not fold["identified"]:
        raise UserError(f"the model is not identified ({fold['reason']}); fit it on more runs")
    for state in (fold["state"], fold["state"].get("roofline", {})):
        odd = sorted(set(state.get("slots", SLOTS)) ^ set(SLOTS))
        if odd:
            raise UserError(
                f"another version of jouleline fitted this model: the laws differ in {', '.join(odd)}; fit it again"
            )
    return fold


def _with_defaults(raw: Columns, devices: list[str], where: str) -> Columns:
    """The columns that a grid's row leaves out: the model's device, one device, no sharding, fp32."""
    count = len(next(iter(raw.values()), ()))
    defaults = {"tensor_parallel": 1, "zero_stage": 0, "precision": "fp32"}
    if len(devices) == 1:
        defaults["device"] = devices[0]
    filled = {name: np.full(count, value, dtype=object) for name, value in defaults.items()} | raw
    if "device_count" not in raw:
        nodes, per_node = (
            np.nan_to_num(as_numbers(raw[name], f"{where}: {name}"), nan=1.0) if name in raw else 1.0
            for name in ("nodes", "gpus_per_node")
        )
        filled["device_count"] = np.full(count, nodes * per_node)
    return filled


def _set_length(rows: Data, where: str) -> None:
    """The steps of each row: given, or computed from its samples or tokens, or one. Samples and tokens follow from
    them.

    Any other length that a row gives must be the same work, up to a last batch that is not full.
    """
    columns = rows.columns
    steps = columns["steps"].astype(float)
    for name in ("samples", "tokens"):
        implied = columns[name] / rows.proxies[f"{name}_per_step"]
        other = np.abs(implied - steps) >= np.maximum(1, 1e-9 * steps)
        remedy = "its row says another length too; give only one of steps, samples and tokens"
        refuse(columns, where, name, other, remedy)
        steps = np.where(np.isnan(steps), np.maximum(implied, 1), steps)
    columns["steps"] = np.where(np.isnan(steps), 1.0, steps)
    for name in ("samples", "tokens"):
        columns[name] = rows.proxies[f"{name}_per_step"] * columns["steps"]


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
    """Predict a Parquet or CSV file of configurations into another file. Returns the table that was written."""
    table = predict_table(fit, read_columns(rows), str(rows), plan)
    write_columns(table, out)
    return table
