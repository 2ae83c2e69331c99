"""Predicted against measured, and every score of every model on every hold-out."""

from jouleline.model.judge.gates import MIN_SHARE
from jouleline.report import labels
from jouleline.report import points as heldout
from jouleline.report.blocks import Cell, Column, Group, Panels, Section, Table, Text, columns
from jouleline.report.canvas import Figure
from jouleline.report.figures.validation import predicted_measured
from jouleline.report.inputs import Inputs, Row, Series, holdout, series_of
from jouleline.report.numbers import (
    DASH,
    count,
    known,
    number,
    percent,
    percent_interval,
    share,
    signed_percent,
)
from jouleline.report.sections.headline import asked, ours, scored, split_title


def _factor(value: float | None) -> str:
    return f"×{number(value)}" if known(value) else DASH


# (header, key of a result, how it is printed, what it is)
_SCORES = (
    ("Median APE", "median_ape", percent, "median absolute percentage error"),
    ("P90 APE", "p90_ape", percent, "90th percentile of the absolute percentage error"),
    ("log-RMSE", "log_rmse", number, "root mean square of ln(predicted / measured)"),
    ("R² (log)", "r2_log", number, "share of the variance of the logarithm, per token, that is explained"),
    ("Bias", "bias", signed_percent, "signed: above zero is over-prediction"),
    ("Cover 80", "coverage80", percent, "share of runs inside their 80 % prediction interval; aim 80 %"),
    ("Cover 95", "coverage95", percent, "share of runs inside their 95 % prediction interval; aim 95 %"),
    (
        "Cover 95, outside",
        "coverage95_outside",
        percent,
        "as before, of runs outside the range that was sampled",
    ),
    ("Intervals", "n_intervals", count, "predictions that have a 95 % interval; the coverage is of these"),
    ("Width 95", "width95", _factor, "median factor from a prediction to the end of its 95 % interval"),
    ("Kendall τ", "kendall_tau", number, "rank agreement within groups of equal work"),
    ("Top-1", "top1", percent, "share of groups whose cheapest configuration is found"),
    ("Regret", "regret", percent, "extra energy of the configuration chosen over the cheapest"),
)


def build(inputs: Inputs, stamp: str) -> Section | None:
    """Panels of predictions, then the tables of scores and gates."""
    if not inputs.predictions and not inputs.results:
        return Section(
            "heldout", "Held-out predictions", [Text("No model made a prediction in this campaign.", "warn")]
        )
    first, rest = inputs.split_names[:1], inputs.split_names[1:]
    wanted = [(s, split) for split in first for s in inputs.series(split) if not labels.is_variant(s[0])]
    wanted += [(ours(inputs), split) for split in rest]
    blocks = [_panels(inputs, wanted, "energy", stamp)]
    blocks.append(_panels(inputs, [(ours(inputs), split) for split in inputs.split_names], "time", stamp))
    blocks += [_scores(inputs, target) for target in ("energy", "time")]
    blocks.append(_gaps(inputs))
    if inputs.validation.get("gates"):
        blocks.append(_gates(inputs))
    return Section("heldout", "Held-out predictions", [block for block in blocks if block])


def _panels(inputs: Inputs, wanted: list[tuple[Series, str]], target: str, stamp: str) -> Panels | None:
    found = [(series, split, heldout.points(inputs, series, split, target)) for series, split in wanted]
    found = [item for item in found if item[2]]
    if not found:
        return None
    values = [v for _, _, points in found for p in points for v in (p.measured, _visible(p))]
    limits = heldout.span(values)
    figures = [
        _panel(inputs, series, split, points, target, limits, stamp) for series, split, points in found
    ]
    strategies = {labels.strategy(point.run) for _, _, points in found for point in points}
    note = (
        "One mark per run, predicted only while it was held out (the median over the folds that held it out); lines "
        "are 95 % prediction intervals. On the diagonal is right; the grey band is a factor of 1.2 either way."
    )
    title = {"energy": "Predicted against measured energy", "time": "Predicted against measured time"}[target]
    if target == "energy" and stamp:
        title = "Predicted against estimated energy"
    return Panels(title, figures, labels.legend(strategies), note)


def _visible(point: heldout.Point) -> float:
    """A prediction off by more than a factor of 10 must not squeeze all the others into a corner."""
    return min(max(point.predicted, point.measured / 10), point.measured * 10)


def _panel(inputs, series: Series, split: str, points, target: str, limits, stamp: str) -> Figure:
    row = inputs.result(series, split, target)
    score = f"MAPE {percent(row['mape'])}" if scored(row) else "MAPE –"
    score += f"\n{len(points)} runs"
    title = f"{split}: {labels.model(*series)}"
    return predicted_measured(points, target, title, score, limits, stamp)


def _scores(inputs: Inputs, target: str) -> Table | None:
    rows = [row for row in inputs.results if row.get("target") == target]
    if not rows:
        return None
    scores = [score for score in _SCORES if any(known(row.get(score[1])) for row in rows)]
    if not any(row.get("n_intervals") not in (None, row.get("n")) for row in rows):
        scores = [score for score in scores if score[1] != "n_intervals"]
    heads = columns("Model", "#MAPE", "#95 % interval", "#Predictions", "#Families")
    heads += [Column(header, True, hover) for header, _, _, hover in scores]
    floor = (inputs.validation.get("noise_floor") or {}).get(f"{target}_cv")
    caption = f"Held-out scores: {target} (noise floor {percent(floor)})"
    lines: list = []
    for split in dict.fromkeys(holdout(row) for row in rows):
        lines.append(Group(split_title(split)))
        lines += [_score_row(row, scores) for row in rows if holdout(row) == split]
    return Table(caption, heads, lines, note=_SCORE_NOTE if target == "energy" else "", dense=True)


_SCORE_NOTE = (
    "APE is the absolute percentage error, MAPE its mean; intervals of MAPE are 95 % and resample whole workload "
    "families. Cover: share of runs inside their 80 or 95 % prediction interval (outside: of those that extrapolate). "
    "Width: median factor from a prediction to the end of its interval. A run that several folds hold out is "
    "predicted several times. A post-run model uses something known only after the run. A dash is a score that cannot "
    "be had."
)


def _score_row(row: Row, scores: list) -> list[Cell | str]:
    name = labels.model(*series_of(row))
    name = Cell(name, "warn") if row.get("post_run") else name
    about = [share(row.get("n"), asked(row)), count(row.get("n_families"))]
    if not scored(row):
        why = (
            Cell("not identified", "warn", str(row.get("reason") or ""))
            if row.get("identified") is False
            else DASH
        )
        return [name, why, DASH, *about, *[DASH] * len(scores)]
    bounds = percent_interval(row.get("mape_lo95"), row.get("mape_hi95"))
    shown = [show(row.get(key)) for _, key, show, _ in scores]
    return [name, percent(row["mape"]), bounds, *about, *shown]


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


def _gates(inputs: Inputs) -> Table:
    """Gates that have a value, are turned on or fail for want of predictions; the others are named in the note."""
    gates = inputs.validation["gates"]
    shown = [
        gate
        for gate in gates
        if gate.get("value") is not None or gate.get("enabled") or gate.get("n") != gate.get("n_predictions")
    ]
    rest = ", ".join(_words(gate.get("name")) for gate in gates if gate not in shown)
    heads = columns("Gate", "Split", "Model", "Score", "#Value", "#Predictions", "#Noise ceiling")
    heads += columns("#Must be", "#Stretch", "Verdict", "If it fails")
    absent = f"Not judged here, for want of the hold-out or the model: {rest}." if rest else ""
    note = f"{absent} {_FEW} {_CEILING}".strip()
    return Table("Gates", heads, [_gate_row(gate) for gate in shown], note=note)


def _gate_row(gate: Row) -> list[Cell | str]:
    sign = {"<=": "≤ ", ">=": "≥ "}.get(str(gate.get("direction")), "")
    show = _PLAIN.get(str(gate.get("metric")), percent)
    what = f"{gate.get('target') or ''} {_METRICS.get(gate.get('metric'), gate.get('metric'))}".strip()
    return [
        _words(gate.get("name")),
        holdout(gate),
        labels.model(str(gate.get("model"))),
        what,
        show(gate.get("value")),
        share(gate.get("n"), gate.get("n_predictions")),
        show(gate.get("ceiling")),
        *(f"{sign}{show(gate.get(key))}" for key in ("limit", "stretch")),
        _GATE_VERDICTS.get(gate.get("passed"), Cell("not judged", "quiet")),
        "fails the build" if gate.get("enabled") else Cell("shown only", "quiet"),
    ]


def _words(name: object) -> str:
    return str(name).replace("_", " ")


_FEW = (
    f"A gate has no value where less than {percent(MIN_SHARE)} of the predictions have what it judges: a value, an "
    "interval, or a partner."
)
_CEILING = (
    "Noise ceiling: what a ranking would score that is off by nothing but the noise of the measured means (that of one "
    "run over the root of its replicates); with these runs no model can be relied on to pass a gate above it."
)
_GATE_VERDICTS = {True: Cell("passed", "good"), False: Cell("failed", "bad")}
_METRICS = {
    "mape": "MAPE",
    "mape_above_gp": "MAPE above the Gaussian process",
    "coverage95": "coverage of 95 % intervals",
    "width95": "factor to the end of 95 % intervals",
    "kendall_tau": "Kendall τ",
    "top1": "top-1 hit rate",
    "regret": "regret",
}
_PLAIN = {"width95": _factor, "kendall_tau": number, "log_rmse": number, "r2_log": number}
