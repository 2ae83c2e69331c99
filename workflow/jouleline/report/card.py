"""The model card in Markdown: what a shipped model is, what it was fitted on, and how large its errors were."""

from collections.abc import Mapping, Sequence
from typing import Any

from jouleline.report.markdown import markdown
from jouleline.report.score_tables import score_tables

_DIAGNOSTICS = {
    "agreeing_share": "share of starts that reached the best cost",
    "condition_number": "condition number",
    "static_share": "share of static energy (median over runs)",
    "train_log_rmse_energy": "log-RMSE of energy in sample",
    "train_log_rmse_time": "log-RMSE of time in sample",
}


def model_card(fit: Mapping[str, Any], validation: Mapping[str, Any] | None = None) -> str:
    """Markdown of a fit of the split `all` and, if given, of its held-out scores (validation.json)."""
    fold = fit["folds"][0]
    source = fold["energy_source"]
    versions = ", ".join(f"{name} {version}" for name, version in fit["versions"].items())
    lines = [f"# Model card: {fit['model']}", ""]
    if source == "estimate":
        lines += ["**The energies behind this model are estimated from CPU time, not measured.**", ""]
    if not fold["identified"]:
        lines += [f"**Not identified: {fold['reason']}.** Do not use it.", ""]
    lines += [
        f"Fitted on {fold['n_train']} runs of {fold['n_train_families']} families (workload and device).",
        f"Energy source: {source}. Runs table {fit['runs_digest'][:16]}; {versions}.",
        "",
        *_domain(fold["domain"]),
        *_parameters(fold["parameters"]),
        *_diagnostics(fold["diagnostics"]),
        *(_scores(fit["model"], validation) if validation else []),
    ]
    return "\n".join(lines) + "\n"


def _domain(domain: Mapping[str, Any]) -> list[str]:
    lines = ["## Where it was fitted", "", "Outside of this it extrapolates, and says so.", ""]
    lines += ["| axis | from | to |", "|---|---|---|"]
    lines += [f"| {axis} | {low:g} | {high:g} |" for axis, (low, high) in domain["ranges"].items()]
    lines += ["", "| category | values |", "|---|---|"]
    lines += [f"| {name} | {', '.join(map(str, values))} |" for name, values in domain["categories"].items()]
    return [*lines, ""]


def _parameters(parameters: Mapping[str, Any]) -> list[str]:
    if not parameters:
        return []
    lines = ["## Parameters", "", "| parameter | value | 95 % interval | unit |", "|---|---|---|---|"]
    for name, entry in parameters.items():
        if not entry["identified"]:
            lines.append(f"| {name} | not identified | | {entry['unit']} |")
            continue
        ends = [entry["lo95"], entry["hi95"]]
        interval = "" if None in ends else f"{ends[0]:.4g} to {ends[1]:.4g}"
        lines.append(f"| {name} | {entry['value']:.4g} | {interval} | {entry['unit']} |")
    return [*lines, ""]


def _diagnostics(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {text}: {found[name]:.4g}" for name, text in _DIAGNOSTICS.items() if found.get(name) is not None
    ]
    pairs = [f"{a} and {b} ({r:.3f})" for a, b, r in found.get("correlated", [])]
    if pairs:
        lines.append(f"- hard to distinguish: {', '.join(pairs)}")
    return ["## Diagnostics", "", *lines, ""] if lines else []


def _scores(model: str, validation: Mapping[str, Any]) -> list[str]:
    own = [row for row in validation["results"] if row["model"] == model and row["split"] != "all"]
    return ["## Held-out errors", "", *score_lines(own, validation["noise_floor"])]


def score_lines(results: Sequence[Mapping[str, Any]], floor: Mapping[str, Any]) -> list[str]:
    """Markdown lines of the scores of energy, then of time. `floor` is the noise floor of validation.json."""
    lines = []
    for target in ("energy", "time"):
        rows = [row for row in results if row["target"] == target]
        for table in score_tables(rows, target, floor[f"{target}_cv"]):
            lines += [*markdown(table), ""]
    return lines
