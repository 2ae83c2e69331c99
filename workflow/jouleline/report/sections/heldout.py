"""Errors of every model on every hold-out, then predicted against measured, then every score."""

from jouleline.report import labels
from jouleline.report.blocks import Panels, Section, Table, Text, columns
from jouleline.report.canvas import Figure
from jouleline.report.figures.validation import predicted_measured
from jouleline.report.inputs import Inputs, Series, holdout, series_of
from jouleline.report.matrix import matrix
from jouleline.report.numbers import DASH, count, percent
from jouleline.report.points import Point, points, span
from jouleline.report.score_tables import gate_table, score_tables
from jouleline.report.scores import asked, ours, scored


def build(inputs: Inputs, stamp: str) -> Section | None:
    """The matrix of errors and the gates. Every prediction and every score is folded behind them."""
    if not inputs.predictions and not inputs.results:
        return Section(
            "heldout", "Held-out predictions", [Text("No model made a prediction in this campaign.", "warn")]
        )
    first, rest = inputs.split_names[:1], inputs.split_names[1:]
    wanted = [(s, split) for split in first for s in inputs.series(split) if not labels.is_variant(s[0])]
    wanted += [(ours(inputs), split) for split in rest]
    floor, gates = inputs.validation.get("noise_floor") or {}, inputs.validation.get("gates") or []
    blocks: list = [
        matrix(inputs.results, gates, target, floor.get(f"{target}_cv"), stamp if target == "energy" else "")
        for target in ("energy", "time")
    ]
    blocks.append(gate_table(gates, stamp) if gates else None)
    blocks.append(_panels(inputs, wanted, "energy", stamp))
    blocks.append(_panels(inputs, [(ours(inputs), split) for split in inputs.split_names], "time", stamp))
    for target in ("energy", "time"):
        rows = [row for row in inputs.results if row.get("target") == target]
        blocks += score_tables(rows, target, floor.get(f"{target}_cv"), stamp)
    blocks.append(_gaps(inputs))
    return Section("heldout", "Held-out predictions", [block for block in blocks if block])


def _panels(inputs: Inputs, wanted: list[tuple[Series, str]], target: str, stamp: str) -> Panels | None:
    found = [(series, split, points(inputs, series, split, target)) for series, split in wanted]
    found = [item for item in found if item[2]]
    if not found:
        return None
    values = [v for _, _, shown in found for p in shown for v in (p.measured, _visible(p))]
    limits = span(values)
    stamp = stamp if target == "energy" else ""  # times are measured
    figures = [_panel(inputs, series, split, shown, target, limits, stamp) for series, split, shown in found]
    strategies = {labels.strategy(point.run) for _, _, shown in found for point in shown}
    note = (
        "One mark per run, predicted only while it was held out (the median over the folds that held it out); lines "
        "are 95 % prediction intervals. On the diagonal is right; the grey band is a factor of 1.2 either way."
    )
    title = {"energy": "Predicted against measured energy", "time": "Predicted against measured time"}[target]
    if stamp:
        title = "Predicted against estimated energy"
    return Panels(title, figures, labels.legend(strategies), note, folded=True)


def _visible(point: Point) -> float:
    """The predicted value, limited to a factor of 10. One bad prediction must not squeeze all others into a corner."""
    return min(max(point.predicted, point.measured / 10), point.measured * 10)


def _panel(inputs, series: Series, split: str, shown: list[Point], target: str, limits, stamp: str) -> Figure:
    row = inputs.result(series, split, target)
    score = f"MAPE {percent(row['mape'])}" if scored(row) else "MAPE –"
    score += f"\n{len(shown)} runs"
    title = f"{split}{', time' if target == 'time' else ''}: {labels.model(*series)}"
    return predicted_measured(shown, target, title, score, limits, stamp)


def _gaps(inputs: Inputs) -> Table | None:
    """Why some models, or some of their rows, have no score."""
    rows = []
    for row in inputs.results:
        missing = row.get("n_not_identified") or 0
        if missing or row.get("identified") is False:
            lacking = f"{count(missing)} of {count(asked(row))}" if missing else "all"
            name = labels.model(*series_of(row))
            rows.append([name, holdout(row), str(row.get("target")), lacking, str(row.get("reason") or DASH)])
    heads = columns("Model", "Split", "Target", "Predictions without", "Reason")
    return Table(f"What is not identified, and why ({len(rows)})", heads, rows, folded=True) if rows else None
