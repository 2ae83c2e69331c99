"""Predictions of a fitted model, for held-out rows of a split and for rows that are still to be run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.base import USEFUL, Context, Prediction, State
from jouleline.model.features import Data, beyond, extrapolation
from jouleline.model.fit import intervals, registry
from jouleline.model.fit.fitting import ids_digest, load, masks, mode_key
from jouleline.model.laws import efficiency
from jouleline.model.machine import Machines
from jouleline.model.table.runs import Columns, digest
from jouleline.schemas.model import PREDICTIONS

Table = dict[str, np.ndarray]

WIDEST = np.log(100.0)
"""Log of the factor beyond which the end of an interval says nothing (Student-t with two families gives 1e11)."""


def predict_split(
    columns: Columns, split: Mapping[str, Any], fit: Mapping[str, Any], calibration=None
) -> Table:
    """The predictions table (columns of `PREDICTIONS`) of every held-out row of every fold.

    Raises UserError where the fit belongs to another split or table than the given ones.
    """
    _check_belongs(fit, split, columns)
    parts = []
    if fit["folds"]:
        data = load(columns)
        _, test = masks(data, split)
        for fold, mask in zip(fit["folds"], test, strict=True):
            rows = efficiency.take(data, mask)
            labels = {"fold": fold["fold"], "model": fit["model"], "split": fit["split"]}
            parts += [
                part | _repeat(labels, len(rows)) for part in predict_rows(fit, fold, rows, calibration)
            ]
    names = PREDICTIONS.names
    if not parts:
        return {name: np.array([]) for name in names}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _check_belongs(fit: Mapping[str, Any], split: Mapping[str, Any], columns: Columns) -> None:
    """Refuse a fit that may have seen what it is to predict: a fit of another split, of other folds, or of another
    table."""
    if fit["split"] != split["split"]:
        why = f"is of split {fit['split']}, not {split['split']}"
    elif [(fold["fold"], fold.get("train_digest")) for fold in fit["folds"]] != [
        (fold["fold"], ids_digest(fold["train"])) for fold in split["folds"]
    ]:
        why = f"was trained on other folds than those of split {split['split']}"
    elif fit["folds"] and fit["runs_digest"] != digest(columns):
        why = "is of another runs table, or of the same before it changed"
    else:
        return
    raise UserError(f"the fit {why}; fit the model on this split again")


def predict_rows(
    fit: Mapping[str, Any], fold: Mapping[str, Any], rows: Data, calibration=None
) -> list[Table]:
    """Each mode's predictions of some rows by one fold of a fit: all columns except fold, model and split.

    The default of `calibration` is the calibration that the fit was made with.
    """
    machines = Machines(calibration or fit.get("calibration"))
    context = Context(machines, fit["options"])
    state: State = {
        **fold["state"],
        **{key: fold[key] for key in ("identified", "reason", "parameters", "diagnostics")},
    }
    predictions = registry.make(fit["model"]).predict(state, rows, context)
    out = beyond(rows, fold["domain"])
    axes = np.full(len(rows), "", dtype=object)
    if out.any():
        axes[out] = extrapolation(rows.take(out), fold["domain"])
    widest = np.inf if fit["model"] in registry.BASELINES else USEFUL
    return [
        _table(rows, prediction, fold["intervals"].get(mode_key(prediction), {}), out, axes, widest)
        for prediction in predictions
    ]


def _table(
    rows: Data,
    prediction: Prediction,
    widths: Mapping[str, Any],
    out: np.ndarray,
    axes: np.ndarray,
    widest: float,
) -> Table:
    """`out` and `axes` say whether, and along which axes, each row lies outside. `widest` is the largest half-width
    (log) that still counts as a prediction."""
    time, energy = prediction.step_time_s * rows.steps, prediction.step_energy_j * rows.steps
    columns = rows.columns
    table = {name: columns[name] for name in ("run_id", "family", "energy_source", "time_s", "energy_j")}
    table |= {"predicted_time_s": time, "predicted_energy_j": energy}
    for target, value, unit in (("energy", energy, "j"), ("time", time, "s")):
        for level in (80, 95):
            width = intervals.row_widths(widths.get(target, {}), level / 100, axes, columns["device"])
            width = np.where(width <= WIDEST, width, np.nan)
            table[f"{target}_lo{level}_{unit}"] = value * np.exp(-width)
            table[f"{target}_hi{level}_{unit}"] = value * np.exp(width)
    identified = prediction.identified & np.isfinite(energy)
    energy95 = intervals.row_widths(widths.get("energy", {}), 0.95, axes, columns["device"])
    useless = energy95 > widest  # where an interval is not known, nothing is decided
    reason = np.where(
        identified & useless,
        f"its 95 % interval is wider than a factor of {np.exp(USEFUL):.0f}",
        prediction.reason or "no prediction for this row",
    )
    identified &= ~useless
    labels = {"efficiency_mode": prediction.efficiency_mode, "post_run": prediction.post_run}
    return (
        table
        | _repeat(labels, len(rows))
        | {
            "extrapolates": out,
            "extrapolation_axes": axes,
            "identified": identified,
            "reason": np.where(identified, None, reason),
        }
    )


def _repeat(values: Mapping[str, Any], count: int) -> Table:
    return {name: np.full(count, value, dtype=object) for name, value in values.items()}


def to_arrow(table: Table):
    """The predictions as a pyarrow table of the schema. NaN becomes null."""
    import pyarrow as pa

    schema = PREDICTIONS.arrow_schema()
    arrays = []
    for entry in schema:
        values = table[entry.name]
        if pa.types.is_floating(entry.type):
            values = values.astype(float)
            arrays.append(pa.array(values, type=entry.type, mask=~np.isfinite(values)))
        else:
            arrays.append(pa.array(values.tolist(), type=entry.type))
    return pa.Table.from_arrays(arrays, schema=schema)
