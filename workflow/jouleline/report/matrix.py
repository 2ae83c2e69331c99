"""The hold-out matrix: the error of every model on every hold-out, with the gates that judge it."""

from collections.abc import Sequence

from jouleline.report import labels
from jouleline.report.blocks import Cell, Column, Table
from jouleline.report.inputs import Row, Series, holdout, series_of
from jouleline.report.numbers import DASH, Shown, count, percent, share
from jouleline.report.scores import asked, scored, split_title

_STEPS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Errors at which the colour of a cell becomes stronger, fractions."""


def matrix(
    rows: Sequence[Row], gates: Sequence[Row], target: str, floor: float | None, stamp: str
) -> Table | None:
    """Mean errors of one target, models by hold-outs; None where none was judged.

    `rows` are results of validation.json, `floor` is the noise floor of the target, a fraction or None.
    """
    rows = [row for row in rows if row.get("target") == target]
    if not any(scored(row) for row in rows):
        return None
    splits = list(dict.fromkeys(holdout(row) for row in rows))
    series = sorted(
        dict.fromkeys(map(series_of, rows)), key=lambda one: (labels.model_rank(one[0]), one[2], one[1] or "")
    )
    found = {(series_of(row), holdout(row)): row for row in rows}
    limits = {
        (gate.get("model"), holdout(gate)): gate
        for gate in gates
        if (gate.get("metric"), gate.get("target")) == ("mape", target) and gate.get("limit") is not None
    }
    lines = [
        [_name(one), *(_cell(found.get((one, split)), limits.get((one[0], split))) for split in splits)]
        for one in series
    ]
    note = (
        f"Mean absolute percentage error; the stronger the colour, the larger, from {percent(_STEPS[0])} to "
        f"{percent(_STEPS[-1])}. A gate is kept ✓ or missed ✗. n.i.: not identified. "
        f"Left out: {'; '.join(map(split_title, splits))}."
    )
    words = f"{count(len(series))} models, {count(len(splits))} hold-outs, noise floor {percent(floor)}"
    heads = [Column("Model"), *(Column(split, True, split_title(split)) for split in splits)]
    return Table(
        f"Errors on what was left out: {target} ({words})", heads, lines, dense=True, note=note, stamp=stamp
    )


def _name(series: Series) -> Cell:
    return Cell(labels.model(*series), "warn" if series[2] else "")


def _cell(row: Row | None, gate: Row | None) -> Cell:
    if row is None:
        return Cell(DASH)
    if not scored(row):
        return Cell("n.i." if row.get("identified") is False else DASH, "quiet", str(row.get("reason") or ""))
    error = percent(row["mape"])
    hover = f"{share(row.get('n'), asked(row))} predictions"
    if gate and gate.get("passed") is not None:  # None: not judged
        error = Shown(f"{error} {'✓' if gate['passed'] else '✗'}", error.value, error.unit)
        hover += f"; gate: at most {percent(gate['limit'])}"
    return Cell(error, f"heat-{1 + sum(row['mape'] > step for step in _STEPS)}", hover)
