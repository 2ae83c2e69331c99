"""The bars that a campaign's model has to clear; each fails the validation only where the campaign turns it on."""

from collections.abc import Mapping
from typing import Any

from jouleline.errors import UserError

# name: (split, target, stratum, metric, limit, stretch, direction). direction "<=": a value above the limit fails.
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

HEADLINE = ("hybrid", "roofline", "paper")
"""The model that the gates judge: the first of these that was fitted."""


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


def judge(results: list[dict[str, Any]], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every gate with the value that the headline model reached; `passed` is null where there is no value.

    `ceiling` is what the noise of the measured means leaves to be reached (see `metrics.choice`); null where that is
    not known.
    """
    check_options(options)
    fitted = {result["model"] for result in results}
    model = options.get("model") or next((name for name in HEADLINE if name in fitted), None)
    enabled = options.get("enabled") or []
    judged = []
    for name, (split, target, stratum, metric, limit, stretch, direction) in GATES.items():
        limit = (options.get("limits") or {}).get(name, limit)
        value = _value(results, model, split, target, stratum, metric)
        passed = None if value is None else value <= limit if direction == "<=" else value >= limit
        ceiling = _value(results, model, split, target, stratum, f"{metric}_ceiling")
        judged.append(
            {
                "name": name,
                "split": split,
                "model": model,
                "target": target,
                "metric": metric,
                "direction": direction,
                "limit": limit,
                "stretch": stretch,
                "value": value,
                "ceiling": ceiling,
                "passed": passed,
                "enabled": enabled == "all" or name in enabled,
            }
        )
    return judged


def _value(results: list[dict], model: str | None, split: str, target: str, stratum: str | None, metric: str):
    def find(name):
        wanted = {"model": name, "split": split, "target": target, "stratum": stratum, "post_run": False}
        rows = [row for row in results if all(row[key] == value for key, value in wanted.items())]
        rows.sort(key=lambda row: row["efficiency_mode"] != "modelled")
        return rows[0] if rows else None

    own = find(model)
    if own is None or not own["identified"]:
        return None
    if metric != "mape_above_gp":
        return own.get(metric)
    other = find("gaussian_process")
    return own["mape"] - other["mape"] if other and other["identified"] else None
