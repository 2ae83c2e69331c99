"""The tables of scores and gates, made once for the page and for Markdown."""

from collections.abc import Callable, Sequence

from jouleline.model.judge.gates import MIN_SHARE
from jouleline.report import labels
from jouleline.report.blocks import Cell, Column, Group, Table, columns
from jouleline.report.inputs import Row, holdout, series_of
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
from jouleline.report.scores import asked, paired, scored, split_title


def _factor(value: float | None) -> str:
    return f"×{number(value)}" if known(value) else DASH


# (header, key of a result, how it is printed, its meaning): what most readers need, then the rest.
_FIRST = (
    ("Median APE", "median_ape", percent, "median absolute percentage error"),
    ("Bias", "bias", signed_percent, "signed: above zero is over-prediction"),
    ("Cover 95", "coverage95", percent, "share of runs inside their 95 % prediction interval; aim 95 %"),
    ("Intervals", "n_intervals", count, "predictions that have a 95 % interval; the coverage is of these"),
    ("Width 95", "width95", _factor, "median factor from a prediction to the end of its 95 % interval"),
)
_REST = (
    ("Families", "n_families", count, "workload families among the predictions"),
    ("P90 APE", "p90_ape", percent, "90th percentile of the absolute percentage error"),
    ("log-RMSE", "log_rmse", number, "root mean square of ln(predicted / measured)"),
    ("R² (log)", "r2_log", number, "share of the variance of the logarithm, per token, that is explained"),
    ("Cover 80", "coverage80", percent, "share of runs inside their 80 % prediction interval; aim 80 %"),
    ("Cover 95, outside", "coverage95_outside", percent, "Cover 95 of the runs outside the sampled range"),
    ("Kendall τ", "kendall_tau", number, "rank agreement within groups of equal work"),
    ("Top-1", "top1", percent, "share of groups whose cheapest configuration is found"),
    ("Regret", "regret", percent, "extra energy of the configuration chosen over the cheapest"),
)
_SCORE_NOTE = (
    "APE is the absolute percentage error, MAPE its mean; intervals of MAPE are 95 % and resample whole workload "
    "families. Against the law: mean error less that of the paper's law on the same predictions, in percentage "
    "points. Cover: share of runs inside their 95 % prediction interval. Width: median factor from a prediction to "
    "the end of its interval. A run that several folds hold out is predicted several times. A post-run model uses "
    "something known only after the run. A dash is a score that cannot be had."
)


def score_tables(rows: Sequence[Row], target: str, floor: float | None, stamp: str = "") -> list[Table]:
    """The scores of one target by hold-out: errors and coverage. A folded table has the other scores.

    `rows` are results of validation.json. `floor` is the noise floor of the target, a fraction or None. `stamp` is for
    tables of energy.
    """
    if not rows:
        return []
    stamp = stamp if target == "energy" else ""
    first = list(_known(rows, _FIRST))
    if not any(row.get("n_intervals") not in (None, row.get("n")) for row in rows):
        first = [score for score in first if score[1] != "n_intervals"]
    heads = columns("Model", "#MAPE", "#95 % interval", "#Predictions")
    heads += [Column("Against the law", True, "less the error of the paper's law, percentage points")]
    caption = (
        f"Held-out scores: {target} ({count(len(rows))} models and hold-outs, noise floor {percent(floor)})"
    )
    note = _SCORE_NOTE if target == "energy" else ""
    main = Table(
        caption,
        [*heads, *_heads(first)],
        _lines(rows, first, _errors),
        folded=True,
        note=note,
        dense=True,
        stamp=stamp,
    )
    rest = _known(rows, _REST)
    more = Table(
        f"More scores: {target}",
        [*columns("Model"), *_heads(rest)],
        _lines(rows, rest, lambda row: []),
        folded=True,
        dense=True,
        stamp=stamp,
    )
    return [main, more]


def _known(rows: Sequence[Row], scores: tuple) -> list[tuple]:
    return [score for score in scores if any(known(row.get(score[1])) for row in rows)]


def _heads(scores: Sequence[tuple]) -> list[Column]:
    return [Column(header, True, hover) for header, _, _, hover in scores]


def _lines(rows: Sequence[Row], scores: Sequence[tuple], first: Callable[[Row], list]) -> list:
    lines: list = []
    for split in dict.fromkeys(holdout(row) for row in rows):
        lines.append(Group(split_title(split)))
        for row in rows:
            if holdout(row) == split:
                name = labels.model(*series_of(row))
                shown = [show(row.get(key)) if scored(row) else DASH for _, key, show, _ in scores]
                lines.append([Cell(name, "warn" if row.get("post_run") else ""), *first(row), *shown])
    return lines


def _errors(row: Row) -> list[Cell | str]:
    """MAPE, its interval, the number of its predictions, and the difference to the paper's law."""
    about = share(row.get("n"), asked(row))
    if not scored(row):
        lacks = row.get("identified") is False
        why = Cell("not identified", "warn", str(row.get("reason") or "")) if lacks else DASH
        return [why, DASH, about, DASH]
    bounds = percent_interval(row.get("mape_lo95"), row.get("mape_hi95"))
    return [percent(row["mape"]), bounds, about, paired(row)]


def gate_table(gates: Sequence[Row], stamp: str = "") -> Table:
    """Gates that have a value, are enabled, or fail because predictions are missing. The note names the others."""
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
    return Table("Gates", heads, [_gate_row(gate) for gate in shown], note=note, stamp=stamp)


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
