"""The held-out error of every model with its interval, beside the noise floor and the gate."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jouleline.report import labels
from jouleline.report.canvas import ACCENT, FONT_SIZE, INK, MUTED, SURFACE, WARN, Figure, finish, panel
from jouleline.report.figures.axes import percent_log_ticks
from jouleline.report.inputs import series_of
from jouleline.report.numbers import known, percent
from jouleline.report.points import span

Result = Mapping[str, Any]
_LABEL_WIDTH = 20
_BACK = {"facecolor": SURFACE, "linewidth": 0, "pad": 0.5}  # keeps lines from crossing the words
_FARTHEST = 10.0  # errors above 1000 % are named, but must not squeeze the others together


def error_forest(
    results: Sequence[Result], title: str, ours: str, floor: float | None, limit: float | None, stamp: str
) -> Figure:
    """Mean absolute percentage error of each model with its 95 % interval, on a logarithmic axis.

    `ours` is the model that is emphasised. `floor` is the noise floor (coefficient of variation of replicates) and
    `limit` the gate, as fractions or None.
    """
    judged = [row for row in results if _judged(row)]
    with panel(height=104 + 34 * max(len(results), 1)) as drawn:
        axes = drawn.axes
        # Written above the labels too, because beside them there is no room for the name of a hold-out.
        drawn.figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=FONT_SIZE + 1, fontweight="bold")
        _scale(axes, judged, floor, limit)
        for place, row in enumerate(results):
            _row(axes, place, row, row.get("model") == ours)
        axes.set_yticks(range(len(results)), [_label(row) for row in results], color=INK)
        axes.set_ylim(len(results) - 0.4, -1.25)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("MAPE, 95 % interval")
        _line(axes, floor, "noise floor", MUTED, ":", -1.0)
        _line(axes, limit, "gate", WARN, "--", -0.6)
        return finish(drawn, _alt(title, results, floor), stamp=stamp)


def _judged(row: Result) -> bool:
    return row.get("identified") is not False and known(row.get("mape")) and row["mape"] > 0


def _scale(axes, judged: Sequence[Result], floor: float | None, limit: float | None) -> None:
    keys = ("mape", "mape_lo95", "mape_hi95")
    values = [row[key] for row in judged for key in keys if known(row.get(key))] + [floor, limit]
    shown = [value for value in values if known(value) and value > 0] or [0.01, 1.0]
    low, high = span([min(value, max(_FARTHEST, min(shown))) for value in shown])
    axes.set_xscale("log")
    axes.set_xlim(low / 1.1, high * (high / low) ** 0.15)
    percent_log_ticks(axes.xaxis, *axes.get_xlim())


def _row(axes, place: int, row: Result, strong: bool) -> None:
    if not _judged(row):
        where = axes.get_yaxis_transform()
        axes.text(0.02, place, "not identified", transform=where, color=MUTED, va="center")
        return
    colour = ACCENT if strong else MUTED
    low, high, farthest = row.get("mape_lo95"), row.get("mape_hi95"), axes.get_xlim()[1]
    if known(low) and known(high):
        axes.plot([max(low, 1e-6), high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
    face = SURFACE if row.get("post_run") else colour
    axes.plot(
        [row["mape"]], [place], "o", markersize=7.5, color=colour, markerfacecolor=face, markeredgewidth=1.6
    )
    right = max(high if known(high) else 0, row["mape"])
    style = {"va": "center", "color": INK, "fontweight": "bold" if strong else "normal"}
    if right * 1.5 > farthest:
        axes.text(farthest, place - 0.33, f"{percent(row['mape'])} →", ha="right", **style)
    else:
        axes.text(right, place, f"\u00a0\u00a0{percent(row['mape'])}", **style)


def _line(axes, value: float | None, words: str, colour: str, dashes: str, height: float) -> None:
    if known(value) and value > 0:
        axes.axvline(value, color=colour, linestyle=dashes, linewidth=1.2, zorder=1)
        axes.text(
            value,
            height,
            f"\u00a0{words} {percent(value)}",
            color=colour,
            fontsize=10,
            va="center",
            bbox=_BACK,
        )


def _label(row: Result) -> str:
    name, mode, post_run = series_of(row)
    second = ", ".join(part for part in (f"η {mode}" if mode else "", "post-run" if post_run else "") if part)
    lines = [labels.model(name), second] if second else textwrap.wrap(labels.model(name), _LABEL_WIDTH)
    return "\n".join(lines)


def _alt(title: str, results: Sequence[Result], floor: float | None) -> str:
    parts = [
        f"{labels.model(*series_of(r))}: {percent(r['mape']) if _judged(r) else 'not identified'}"
        for r in results
    ]
    return f"{title}: mean absolute percentage error. {'; '.join(parts)}. Noise floor {percent(floor)}."
