"""The model card: what a shipped model is, what it was fitted on, how far off it was, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

_DIAGNOSTICS = {
    "agreeing_share": "share of starts that reached the best cost",
    "condition_number": "condition number",
    "static_share": "share of static energy (median over runs)",
    "train_log_rmse_energy": "log-RMSE of energy in sample",
    "train_log_rmse_time": "log-RMSE of time in sample",
}


def model_card(fit: Mapping[str, Any], validation: Mapping[str, Any] | None = None) -> str:
    """Markdown of a fit of the split `all` and, where given, of its held-out scores (validation.json)."""
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
        lines.append(f"- told apart with difficulty: {', '.join(pairs)}")
    return ["## Diagnostics", "", *lines, ""] if lines else []


def _scores(model: str, validation: Mapping[str, Any]) -> list[str]:
    own = [row for row in validation["results"] if row["model"] == model and row["split"] != "all"]
    lines = ["## Held-out errors", "", *score_table(own)]
    floor = validation["noise_floor"]
    if floor["energy_cv"] is not None:
        spread = f"{floor['energy_cv']:.1%} (energy) and {floor['time_cv']:.1%} (time)"
        lines += ["", f"Replicates of one configuration differ by {spread}."]
    return [*lines, ""]


def score_table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown lines: one per result, with error, interval, bias and coverage."""
    head = [
        "split",
        "model",
        "target",
        "efficiency",
        "predictions",
        "MAPE (95 % interval)",
        "against the paper's law, points",
        "median",
        "log-RMSE",
        "bias",
    ]
    head.append("95 % coverage (half-width)")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [_score_line(row) for row in results]


def _score_line(row: Mapping[str, Any]) -> str:
    mode = f"{row['efficiency_mode'] or ''}{' (post-run)' if row['post_run'] else ''}"
    asked = row["n"] + (row.get("n_not_identified") or 0)
    cells = [_split(row), row["model"], row["target"], mode, _share(row["n"], asked)]
    if not row["identified"]:
        cells += [f"not identified: {row['reason']}", "", "", "", "", ""]
    else:
        interval = "" if row["mape_lo95"] is None else f" ({row['mape_lo95']:.1%} to {row['mape_hi95']:.1%})"
        cells += [f"{row['mape']:.1%}{interval}", _paired(row)]
        cells += [f"{row['median_ape']:.1%}", f"{row['log_rmse']:.3f}"]
        cells += [f"{row['bias']:+.1%}", _coverage(row)]
    return f"| {' | '.join(map(str, cells))} |"


def _split(row: Mapping[str, Any]) -> str:
    return f"{row['split']} {row['stratum']}" if row.get("stratum") else str(row["split"])


def _share(part: int, whole: int) -> str:
    """How many of how many, where it is not all."""
    return str(part) if part == whole else f"{part} of {whole}"


def _coverage(row: Mapping[str, Any]) -> str:
    """Of the predictions that have an interval, and of how many that is; empty where none has one."""
    if row["coverage95"] is None:
        return ""
    text, known = f"{row['coverage95']:.1%} (x{row['width95']:.2f})", row.get("n_intervals")
    return text if known in (None, row["n"]) else f"{text} of {_share(known, row['n'])}"


def _paired(row: Mapping[str, Any]) -> str:
    """The error less that of the paper's law on the same predictions, in percentage points."""
    if row["above_paper"] is None:
        return ""
    low, high = row["above_paper_lo95"], row["above_paper_hi95"]
    bounds = "" if low is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * row['above_paper']:+.1f}{bounds}"


def gate_table(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown lines: one per gate, with the value reached and the predictions that it is of."""
    head = [
        "gate",
        "split",
        "model",
        "metric",
        "limit",
        "stretch",
        "value",
        "predictions",
        "noise ceiling",
        "passed",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for gate in gates:
        value = "no value" if gate["value"] is None else f"{gate['value']:.3f}"
        passed = {True: "yes", False: "no", None: ""}[gate["passed"]]
        cells = [gate["name"], _split(gate), gate["model"], f"{gate['target']} {gate['metric']}"]
        cells += [f"{gate['direction']} {gate['limit']:g}", f"{gate['stretch']:g}", value]
        cells += [_share(gate["n"], gate["n_predictions"]) if gate["n_predictions"] else ""]
        cells += ["" if gate["ceiling"] is None else f"{gate['ceiling']:.3f}", passed]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines
