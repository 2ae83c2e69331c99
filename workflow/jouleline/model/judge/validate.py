"""validation.json: every metric of every model on every split, and the gates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.fit.fitting import load
from jouleline.model.judge import gates, metrics
from jouleline.model.table.runs import Columns, take
from jouleline.schemas.model import headline

SCHEMA = 1


def validate(
    columns: Columns,
    tables: Sequence[Mapping[str, np.ndarray]],
    fits: Sequence[Mapping[str, Any]],
    gate_options: Mapping,
    wanted: str | None = None,
) -> dict[str, Any]:
    """The document of the contract: noise floor, results, gates, and whether every enabled gate passed.

    `tables` are predictions tables as columns. `fits` are the fit.json of each, for the reasons of splits without
    folds. An enabled gate without a value fails, because nothing was shown. `wanted` names the headline model (see
    `headline`), which the gates judge too.
    """
    gates.check_options(gate_options)
    kept = load(columns).columns if columns else {}
    rows = {run_id: row for row, run_id in enumerate(kept["run_id"].tolist())} if kept else {}
    unknown = {"energy_cv": None, "time_cv": None, "n_groups": 0}
    floor = metrics.noise_floor(kept) if kept else unknown
    known = _Known(kept, rows, floor["energy_cv"], _errors_of(tables, PAPER), _errors_of(tables, PROCESS))
    results = []
    for table in tables:
        results += _results(table, known)
    seen = {(result["model"], result["split"]) for result in results}
    for fit in fits:
        if (fit["model"], fit["split"]) not in seen:
            results += [_empty(fit, target) for target in ("energy", "time")]
    judged = gates.judge(results, gate_options, wanted)
    return {
        "schema": SCHEMA,
        "headline": headline(dict.fromkeys(result["model"] for result in results), wanted),
        "energy_sources": sorted(set(kept["energy_source"].tolist())) if kept else [],
        "noise_floor": floor,
        "results": results,
        "gates": judged,
        "passed": all(gate["passed"] is True for gate in judged if gate["enabled"]),
    }


_METRICS = (
    *("mape", "mape_lo95", "mape_hi95", "median_ape", "p90_ape", "log_rmse", "r2_log", "bias", "coverage80"),
    *("above_paper", "above_paper_lo95", "above_paper_hi95"),
    *("coverage95", "width95", "coverage95_outside", "kendall_tau", "top1", "regret", "n_choice_groups"),
    *("kendall_tau_ceiling", "top1_ceiling", "mape_above_gp", "n_above_gp", "n_intervals"),
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


@dataclass(frozen=True)
class _Known:
    """What predictions are compared with.

    It holds the usable runs, the row of each run id, and the noise of one run's energy (log sd, None: nothing was
    repeated). It also holds the errors of the paper's law and of the Gaussian process (`_errors_of`).
    """

    columns: Columns
    rows: Mapping[str, int]
    noise: float | None
    paper: Mapping[tuple, float]
    process: Mapping[tuple, float]


PAPER = ("paper", "parametric")
"""The paper's law as it predicts before a run. Every model is paired with it."""

PROCESS = ("gaussian_process", None)
"""The best model inside the sampled range that uses no physics. The gates pair with it."""


def _errors_of(tables: Sequence[Mapping[str, np.ndarray]], rival: tuple) -> dict[tuple, float]:
    """(split, fold, run id) -> absolute percentage error in energy of a (model, mode), where it predicts."""
    found = {}
    for table in tables:
        for key, ape in zip(_predicted(table), _ape(table, "energy"), strict=True):
            if key[:2] == rival and np.isfinite(ape):
                found[key[2:]] = float(ape)
    return found


def _predicted(table: Mapping[str, np.ndarray]) -> list[tuple]:
    """(model, efficiency mode, split, fold, run id) of each row of a predictions table."""
    names = ("model", "efficiency_mode", "split", "fold", "run_id")
    return list(zip(*(table[name].tolist() for name in names), strict=True))


def _ape(table: Mapping[str, np.ndarray], target: str) -> np.ndarray:
    """Absolute percentage errors [R] as fractions. NaN where a prediction does not count."""
    unit = {"energy": "j", "time": "s"}[target]
    measured, predicted = (table[f"{name}{target}_{unit}"].astype(float) for name in ("", "predicted_"))
    good = table["identified"].astype(bool) & np.isfinite(predicted) & (predicted > 0)
    return np.where(good, np.abs(predicted / measured - 1), np.nan)


def _above(table: Mapping[str, np.ndarray], known: _Known) -> dict[str, Any]:
    """The mean error minus that of the paper's law, with its 95 % interval, and minus that of the Gaussian process."""
    difference, families = _paired(table, PAPER, known.paper)
    found: dict[str, Any] = {}
    if len(difference):
        low, high = metrics.clustered_interval(difference, families)
        found |= {"above_paper": float(difference.mean()), "above_paper_lo95": low, "above_paper_hi95": high}
    difference, _ = _paired(table, PROCESS, known.process)
    if len(difference):
        found |= {"mape_above_gp": float(difference.mean()), "n_above_gp": len(difference)}
    return found


def _paired(
    table: Mapping[str, np.ndarray], rival: tuple, errors: Mapping[tuple, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Errors minus those of the rival on the same held-out predictions, and their families. None for the rival
    itself."""
    keys = _predicted(table)
    theirs = [np.nan if key[:2] == rival else errors.get(key[2:], np.nan) for key in keys]
    difference = _ape(table, "energy") - np.array(theirs)
    both = np.isfinite(difference)
    return difference[both], table["family"][both].astype(str)


def _results(table: Mapping[str, np.ndarray], known: _Known) -> list[dict[str, Any]]:
    """One result per mode, target and stratum of a predictions table."""
    if not len(table["run_id"]):
        return []
    unknown = [run_id for run_id in table["run_id"].tolist() if run_id not in known.rows]
    if unknown:
        raise UserError(f"predictions name the run {unknown[0]}, which the runs table lacks; predict again")
    modes = sorted(
        {(str(mode or ""), bool(post)) for mode, post in zip(table["efficiency_mode"], table["post_run"])}
    )
    strata = _strata(table, known)
    results = []
    for mode, post_run in modes:
        own = np.array([(m or "") == mode for m in table["efficiency_mode"]]) & (
            table["post_run"].astype(bool) == post_run
        )
        for stratum in sorted(set(strata.tolist()), key=str):
            part = own & (strata == stratum)
            for target in ("energy", "time"):
                chosen = {name: values[part] for name, values in table.items()}
                result = _one(chosen, target, known)
                if target == "energy":
                    result |= _above(chosen, known)
                if target == "time" and not result["identified"] and result.pop("no_law"):
                    continue
                result.pop("no_law", None)
                labels = {"efficiency_mode": mode or None, "post_run": post_run, "stratum": stratum}
                results.append(result | labels)
    return results


def _strata(table: Mapping[str, np.ndarray], known: _Known) -> np.ndarray:
    """The part of its split that each prediction belongs to (see `gates.stratum`), object [R].

    A split with parts has no score of its own. A prediction without runs and one with a few runs answer different
    questions.
    """
    devices = known.columns["device"][[known.rows[run_id] for run_id in table["run_id"].tolist()]]
    rows = zip(table["split"].tolist(), table["fold"].tolist(), devices.tolist(), strict=True)
    return np.array([gates.stratum(*row) for row in rows], dtype=object)


def _one(table: Mapping[str, np.ndarray], target: str, known: _Known) -> dict[str, Any]:
    unit = {"energy": "j", "time": "s"}[target]
    measured, predicted = (table[f"{name}{target}_{unit}"].astype(float) for name in ("", "predicted_"))
    good = np.isfinite(_ape(table, target))
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
    index = np.array([known.rows[run_id] for run_id in table["run_id"][good].tolist()])
    tokens = known.columns["tokens"][index].astype(float)
    result |= metrics.errors(measured, predicted, table["family"][good].astype(str), tokens)
    result |= {
        "coverage80": metrics.coverage(measured, low80, high80),
        "coverage95": metrics.coverage(measured, low, high),
        "n_intervals": int((np.isfinite(low) & np.isfinite(high)).sum()),
        "width95": metrics.half_width(predicted, high),
        "coverage95_outside": metrics.coverage(measured[outside], low[outside], high[outside]),
    }
    if target == "energy":
        folds = table["fold"][good].astype(str)
        result |= _choice(folds, take(known.columns, index), predicted, known.noise)
    return result


def _choice(
    folds: np.ndarray, columns: Columns, predicted: np.ndarray, noise: float | None
) -> dict[str, Any]:
    """Ranking metrics, averaged over folds. So the rows of a fold are compared only with each other."""
    found = []
    for fold in sorted(set(folds.tolist())):
        own = folds == fold
        found.append(metrics.choice(take(columns, own), predicted[own], noise))
    merged: dict[str, Any] = {}
    for name in ("kendall_tau", "top1", "regret", "kendall_tau_ceiling", "top1_ceiling"):
        parts = [(one[name], one["n_choice_groups"]) for one in found if one[name] is not None]
        merged[name] = (
            float(np.average(*np.array(parts).T[:1], weights=np.array(parts).T[1])) if parts else None
        )
    return merged | {"n_choice_groups": sum(one["n_choice_groups"] for one in found)}


def read_predictions(path: str | Path) -> dict[str, np.ndarray]:
    """A predictions file as columns. Raises UserError where it is missing or is another table."""
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
