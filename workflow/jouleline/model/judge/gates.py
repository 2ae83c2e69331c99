"""The limits that a campaign's model has to meet. Each fails the validation only where the campaign enables it."""

import re
from collections.abc import Mapping
from typing import Any

from jouleline.errors import UserError
from jouleline.schemas.model import headline

# name: (split, target, stratum, metric, limit, stretch, direction). Direction "<=": a value above the limit fails.
GATES: dict[str, tuple] = {
    "in_domain": ("H0", "energy", None, "mape", 0.06, 0.03, "<="),
    "in_domain_beside_gp": ("H0", "energy", None, "mape_above_gp", 0.01, 0.0, "<="),
    "unseen_architecture": ("H1", "energy", None, "mape", 0.10, 0.06, "<="),
    "unseen_extreme": ("H2", "energy", None, "mape", 0.10, 0.06, "<="),
    "small_to_large": ("H3", "energy", None, "mape", 0.12, 0.08, "<="),
    "unseen_strategy": ("H4", "energy", None, "mape", 0.20, 0.12, "<="),
    "unseen_count": ("H5", "energy", None, "mape", 0.10, 0.05, "<="),
    "unseen_device": ("H6", "energy", "zero-shot", "mape", 0.20, 0.12, "<="),
    "unseen_device_5_runs": ("H6", "energy", "5-runs", "mape", 0.08, 0.05, "<="),
    "time": ("H0", "time", None, "mape", 0.06, 0.04, "<="),
    "coverage_low": ("H0", "energy", None, "coverage95", 0.93, 0.93, ">="),
    "coverage_high": ("H0", "energy", None, "coverage95", 0.97, 0.97, "<="),
    "interval_width": ("H0", "energy", None, "width95", 1.25, 1.25, "<="),
    "coverage_outside": ("H2", "energy", None, "coverage95", 0.90, 0.95, ">="),
    "ranking": ("H0", "energy", None, "kendall_tau", 0.95, 0.95, ">="),
    "cheapest": ("H0", "energy", None, "top1", 0.90, 0.95, ">="),
    "regret": ("H0", "energy", None, "regret", 0.03, 0.01, "<="),
}

MIN_SHARE = 0.9
"""A gate has a value where at least this share of the predictions has what it judges (a value, an interval, a partner).
So a model cannot pass a gate by giving no value where prediction is hard."""

_COUNTED = {"mape_above_gp": "n_above_gp", "coverage95": "n_intervals", "width95": "n_intervals"}
"""Metric -> the count of predictions behind it. For the other metrics it is n."""


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse a gates block with an unknown key or gate: {enabled: [names] | "all", limits: {name: x}, model: name}."""
    unknown = set(options) - {"enabled", "limits", "model"}
    enabled = options.get("enabled") or []
    named = set() if enabled == "all" else set(enabled)
    wrong = unknown or (named | set(options.get("limits") or {})) - set(GATES)
    if wrong:
        raise UserError(
            f"gates: there is no {sorted(wrong)[0]}; keys are enabled, limits, model; gates are {', '.join(GATES)}"
        )


def stratum(split: str, fold: str, device: str | None) -> str | None:
    """The part of a split that is judged separately: for H6 what a fold knows of its device, such as zero-shot or
    5-runs.

    `device` is the one that the fold holds out. Its name and the part form the name of the fold. The draws of a few
    runs are one part together, because a single draw depends on luck.
    """
    part = re.sub(r"-draw-\d+$", "", str(fold).removeprefix(f"{device}-"))
    return part if split == "H6" and str(fold).startswith(f"{device}-") else None


def judge(
    results: list[dict[str, Any]], options: Mapping[str, Any], wanted: str | None = None
) -> list[dict[str, Any]]:
    """Every gate with the value that the model reached.

    The model is the headline (`wanted`, see `schemas.model.headline`), or `options["model"]` where a campaign judges
    another one. `passed` is null where there is no value. The value covers `n` of `n_predictions`. With less than
    MIN_SHARE of them there is no value. `ceiling` is the best value that the noise of the measured means allows (see
    `metrics.choice`). It is null where this is not known.
    """
    check_options(options)
    model = options.get("model") or headline(dict.fromkeys(one["model"] for one in results), wanted)
    enabled = options.get("enabled") or []
    judged = []
    for name, (split, target, part, metric, limit, stretch, direction) in GATES.items():
        limit = (options.get("limits") or {}).get(name, limit)
        own = _find(results, model, split, target, part)
        n, total = _counts(own, metric)
        value = own.get(metric) if n and n >= MIN_SHARE * total else None
        judged.append(
            {
                "name": name,
                "split": split,
                "stratum": part,
                "model": model,
                "target": target,
                "metric": metric,
                "direction": direction,
                "limit": limit,
                "stretch": stretch,
                "value": value,
                "n": n,
                "n_predictions": total,
                "ceiling": own.get(f"{metric}_ceiling"),
                "passed": None if value is None else value <= limit if direction == "<=" else value >= limit,
                "enabled": enabled == "all" or name in enabled,
            }
        )
    return judged


def _find(
    results: list[dict], model: str | None, split: str, target: str, part: str | None
) -> dict[str, Any]:
    """The result that a gate judges. Of several modes the modelled efficiency counts. Empty where there is no
    result."""
    wanted = {"model": model, "split": split, "target": target, "stratum": part, "post_run": False}
    rows = [row for row in results if all(row[key] == value for key, value in wanted.items())]
    rows.sort(key=lambda row: row["efficiency_mode"] != "modelled")
    return rows[0] if rows else {}


def _counts(own: Mapping[str, Any], metric: str) -> tuple[int, int]:
    """The number of predictions that a metric covers, and of all that were asked for."""
    total = (own.get("n") or 0) + (own.get("n_not_identified") or 0)
    return own.get(_COUNTED.get(metric, "n")) or 0, total


def outcome(gate: Mapping[str, Any]) -> str:
    """The outcome of a gate in a few words: "mape 0.071, limit <= 0.06"."""
    share = f"{gate['n']} of {gate['n_predictions']} predictions"
    value = f"no value ({share})" if gate["value"] is None else f"{gate['value']:.3g}"
    return f"{gate['metric']} {value}, limit {gate['direction']} {gate['limit']:g}"
