"""validation.json: every metric of every model on every split, and the gates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model import gates, metrics
from jouleline.model.fitting import load
from jouleline.model.table import Columns, take

SCHEMA = 1


def validate(
    columns: Columns,
    tables: Sequence[Mapping[str, np.ndarray]],
    fits: Sequence[Mapping[str, Any]],
    gate_options: Mapping,
) -> dict[str, Any]:
    """The document of the contract: noise floor, results, gates, and whether every enabled gate passed.

    `tables`: predictions tables as columns; `fits`: the fit.json of each, for the reasons of splits without folds.
    An enabled gate without a value fails: nothing was shown.
    """
    gates.check_options(gate_options)
    kept = load(columns).columns if columns else {}
    rows = {run_id: row for row, run_id in enumerate(kept["run_id"].tolist())} if kept else {}
    results = []
    for table in tables:
        results += _results(table, kept, rows)
    seen = {(result["model"], result["split"]) for result in results}
    for fit in fits:
        if (fit["model"], fit["split"]) not in seen:
            results += [_empty(fit, target) for target in ("energy", "time")]
    judged = gates.judge(results, gate_options)
    return {
        "schema": SCHEMA,
        "energy_sources": sorted(set(kept["energy_source"].tolist())) if kept else [],
        "noise_floor": metrics.noise_floor(kept)
        if kept
        else {"energy_cv": None, "time_cv": None, "n_groups": 0},
        "results": results,
        "gates": judged,
        "passed": all(gate["passed"] is True for gate in judged if gate["enabled"]),
    }


_METRICS = (
    *("mape", "mape_lo95", "mape_hi95", "median_ape", "p90_ape", "log_rmse", "r2_log", "bias", "coverage80"),
    *("coverage95", "width95", "coverage95_outside", "kendall_tau", "top1", "regret", "n_choice_groups"),
)


def _empty(fit: Mapping[str, Any], target: str) -> dict[str, Any]:
    labels = {
        "model": fit["model"],
        "split": fit["split"],
        "target": target,
        "efficiency_mode": None,
        "post_run": False,
    }
    counts = {"stratum": None, "n": 0, "n_folds": 0, "n_families": 0}
    reason = fit.get("reason") or "no held-out rows"
    return labels | counts | dict.fromkeys(_METRICS) | {"identified": False, "reason": reason}


def _results(
    table: Mapping[str, np.ndarray], columns: Columns, rows: Mapping[str, int]
) -> list[dict[str, Any]]:
    """One result per mode, target and stratum of a predictions table."""
    if not len(table["run_id"]):
        return []
    unknown = [run_id for run_id in table["run_id"].tolist() if run_id not in rows]
    if unknown:
        raise UserError(f"predictions name the run {unknown[0]}, which the runs table lacks; predict again")
    modes = sorted(
        {(str(mode or ""), bool(post)) for mode, post in zip(table["efficiency_mode"], table["post_run"])}
    )
    strata = [None, *_strata(table)]
    results = []
    for mode, post_run in modes:
        own = np.array([(m or "") == mode for m in table["efficiency_mode"]]) & (
            table["post_run"].astype(bool) == post_run
        )
        for stratum in strata:
            part = (
                own if stratum is None else own & np.array([str(f).endswith(stratum) for f in table["fold"]])
            )
            for target in ("energy", "time"):
                chosen = {name: values[part] for name, values in table.items()}
                result = _one(chosen, target, columns, rows)
                if target == "time" and not result["identified"] and result.pop("no_law"):
                    continue
                result.pop("no_law", None)
                labels = {"efficiency_mode": mode or None, "post_run": post_run, "stratum": stratum}
                results.append(result | labels)
    return results


def _strata(table: Mapping[str, np.ndarray]) -> list[str]:
    """What H6 reports apart: folds without and with a few runs of the device."""
    names = set(map(str, table["fold"].tolist()))
    return [end for end in ("zero-shot", "3-runs", "5-runs") if any(name.endswith(end) for name in names)]


def _one(
    table: Mapping[str, np.ndarray], target: str, columns: Columns, rows: Mapping[str, int]
) -> dict[str, Any]:
    unit = {"energy": "j", "time": "s"}[target]
    measured, predicted = (table[f"{name}{target}_{unit}"].astype(float) for name in ("", "predicted_"))
    good = table["identified"].astype(bool) & np.isfinite(predicted) & (predicted > 0)
    result = {
        "model": str(table["model"][0]),
        "split": str(table["split"][0]),
        "target": target,
        "n": int(good.sum()),
        "n_folds": len(set(table["fold"][good].tolist())),
        "n_families": len(set(table["family"][good].tolist())),
        "n_not_identified": int((~good).sum()),
        **dict.fromkeys(_METRICS),
        "identified": bool(good.any()),
        "reason": None,
        "no_law": not np.isfinite(predicted).any() and bool(table["identified"].any()),
    }
    if not good.all():
        reasons = [reason for reason in table["reason"][~good].tolist() if reason]
        result["reason"] = max(set(reasons), key=reasons.count) if reasons else None
    if not good.any():
        return result
    low, high = (table[f"{target}_{side}95_{unit}"].astype(float)[good] for side in ("lo", "hi"))
    low80, high80 = (table[f"{target}_{side}80_{unit}"].astype(float)[good] for side in ("lo", "hi"))
    measured, predicted, outside = measured[good], predicted[good], table["extrapolates"].astype(bool)[good]
    index = np.array([rows[run_id] for run_id in table["run_id"][good].tolist()])
    tokens = columns["tokens"][index].astype(float)
    result |= metrics.errors(measured, predicted, table["family"][good].astype(str), tokens)
    result |= {
        "coverage80": metrics.coverage(measured, low80, high80),
        "coverage95": metrics.coverage(measured, low, high),
        "width95": metrics.half_width(predicted, high),
        "coverage95_outside": metrics.coverage(measured[outside], low[outside], high[outside])
        if outside.any()
        else None,
    }
    if target == "energy":
        result |= _choice(table["fold"][good].astype(str), take(columns, index), predicted)
    return result


def _choice(folds: np.ndarray, columns: Columns, predicted: np.ndarray) -> dict[str, Any]:
    """Ranking metrics, averaged over folds so that a fold's own rows are compared with each other."""
    found = []
    for fold in sorted(set(folds.tolist())):
        own = folds == fold
        found.append(metrics.choice(take(columns, own), predicted[own]))
    merged: dict[str, Any] = {}
    for name in ("kendall_tau", "top1", "regret"):
        parts = [(one[name], one["n_choice_groups"]) for one in found if one[name] is not None]
        merged[name] = (
            float(np.average(*np.array(parts).T[:1], weights=np.array(parts).T[1])) if parts else None
        )
    return merged | {"n_choice_groups": sum(one["n_choice_groups"] for one in found)}


def read_predictions(path: str | Path) -> dict[str, np.ndarray]:
    """A predictions file as columns; raises UserError where it is missing or another table."""
    from jouleline.schemas import read_table
    from jouleline.schemas.model import PREDICTIONS

    rows = read_table(PREDICTIONS, path)
    columns = {}
    for column in PREDICTIONS.columns:
        values = [row[column.name] for row in rows]
        if column.type == "float64":
            columns[column.name] = np.array(
                [np.nan if value is None else value for value in values], dtype=float
            )
        else:
            columns[column.name] = np.array(values, dtype=object)
    return columns
