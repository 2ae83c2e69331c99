"""Predictions against measurements, and residuals against the axes of the grid."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from jouleline.report import labels
from jouleline.report.canvas import GRID, HEIGHT, INK, MUTED, SURFACE, Figure, finish, panel
from jouleline.report.figures.axes import log_ticks, percent_ticks
from jouleline.report.numbers import quantity, signed_percent, text
from jouleline.report.points import UNITS, Point

_BAND = 1.2  # the grey band of a predicted-against-measured panel: a factor of 1.2 either way


def predicted_measured(
    points: Sequence[Point], target: str, title: str, score: str, limits: tuple[float, float], stamp: str
) -> Figure:
    """Predicted against measured per token on equal logarithmic axes: a mark per held-out run, with its interval."""
    unit = UNITS[target]
    with panel(height=HEIGHT + 74) as drawn:
        axes = drawn.axes
        axes.set_title(title)
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
        axes.fill_between(
            limits,
            [v / _BAND for v in limits],
            [v * _BAND for v in limits],
            color=GRID,
            alpha=0.55,
            linewidth=0,
        )
        axes.plot(limits, limits, color=MUTED, linewidth=1)
        for strategy in labels.STRATEGIES:
            group = [point for point in points if labels.strategy(point.run) == strategy]
            if group:
                _scatter(drawn, group, strategy, unit)
        for axis in (axes.xaxis, axes.yaxis):
            log_ticks(axis, *limits, unit)
        axes.set_xlabel(f"{'estimated' if stamp and target == 'energy' else 'measured'} {target} per token")
        axes.set_ylabel(f"predicted {target} per token")
        axes.text(0.03, 0.97, score, transform=axes.transAxes, va="top", color=INK)
        outside = sum(not limits[0] <= point.predicted <= limits[1] for point in points)
        alt = (
            f"{title}: predicted against measured {target} per token of {len(points)} held-out runs. {score}."
        )
        return finish(
            drawn,
            alt.replace("\n", ", ") + (f" {outside} lie outside the axes." if outside else ""),
            stamp=stamp,
        )


def _scatter(drawn, group: Sequence[Point], strategy: labels.Strategy, unit: str) -> None:
    bounded = [point for point in group if point.low95 is not None and point.high95 is not None]
    # One line with gaps. A separate line for each point would be ten times as long in the page.
    places = [x for point in bounded for x in (point.measured, point.measured, math.nan)]
    bounds = [y for point in bounded for y in (point.low95, point.high95, math.nan)]
    drawn.axes.plot(places, bounds, color=strategy.colour, linewidth=1, alpha=0.45)
    xs, ys = [point.measured for point in group], [point.predicted for point in group]
    marks = drawn.axes.scatter(
        xs,
        ys,
        s=42,
        marker=strategy.marker,
        color=strategy.colour,
        edgecolors=SURFACE,
        linewidths=0.6,
        zorder=3,
    )
    drawn.label_points(marks, [_hover(point, unit) for point in group])


def _hover(point: Point, unit: str) -> str:
    values = f"measured {quantity(point.measured, unit)}, predicted {quantity(point.predicted, unit)}"
    return f"{point.run.get('run_id')}: {values} per token ({signed_percent(point.error)})"


def residuals(
    points: Sequence[Point], axis: str, title: str, limits: tuple[float, float], stamp: str
) -> Figure:
    """Relative error against one axis of the grid: a column of marks per value, with a bar at their median."""
    values = sorted({value(point, axis) for point in points}, key=_place)
    with panel(height=HEIGHT - 40) as drawn:
        axes = drawn.axes
        axes.set_title(title)
        axes.axhline(0, color=MUTED, linewidth=1)
        for place, level in enumerate(values):
            column = sorted(
                (p for p in points if value(p, axis) == level),
                key=lambda p: (p.error, str(p.run.get("run_id"))),
            )
            _residual_column(drawn, place, column)
        axes.set_xticks(range(len(values)), [_level(level) for level in values])
        axes.set_xlim(-0.6, len(values) - 0.4)
        axes.set_ylim(*limits)
        axes.grid(axis="x", visible=False)
        percent_ticks(axes.yaxis)
        axes.set_ylabel("predicted / measured − 1")
        medians = {level: median(p.error for p in points if value(p, axis) == level) for level in values}
        words = "; ".join(
            f"{_level(level).replace(chr(10), ' ')}: median {signed_percent(medians[level])}"
            for level in values
        )
        return finish(drawn, f"Residuals against {title}. {words}.", stamp=stamp)


def _residual_column(drawn, place: int, column: Sequence[Point]) -> None:
    spread = [((index * 0.618034) % 1 - 0.5) * 0.5 for index in range(len(column))]
    for strategy in labels.STRATEGIES:
        chosen = [(dx, p) for dx, p in zip(spread, column, strict=True) if labels.strategy(p.run) == strategy]
        if not chosen:
            continue
        xs, ys = [place + dx for dx, _ in chosen], [p.error for _, p in chosen]
        marks = drawn.axes.scatter(
            xs,
            ys,
            s=30,
            marker=strategy.marker,
            color=strategy.colour,
            edgecolors=SURFACE,
            linewidths=0.5,
            zorder=3,
        )
        drawn.label_points(marks, [f"{p.run.get('run_id')}: {signed_percent(p.error)}" for _, p in chosen])
    middle = median(point.error for point in column)
    drawn.axes.plot([place - 0.36, place + 0.36], [middle] * 2, color=INK, linewidth=2)


def value(point: Point, axis: str) -> Any:
    """The value of a grid axis for a point: a column of the runs table, or `strategy`."""
    return labels.strategy(point.run).name if axis == "strategy" else point.run.get(axis)


def _place(level: Any) -> tuple:
    """Strategies in their fixed order, after numbers and before other words."""
    names = [strategy.name for strategy in labels.STRATEGIES]
    if level in names:
        return (1, names.index(level), "")
    return (2, 0, level) if isinstance(level, str) else (0, level or 0, "")


def _level(level: Any) -> str:
    if isinstance(level, str):
        return level.replace(" ", "\n").replace("\n×\n", " ×\n")
    return text(level)
