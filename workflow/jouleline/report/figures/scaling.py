"""Efficiency and energy against the number of devices."""

from collections.abc import Callable, Sequence

from jouleline.report.canvas import INK, MUTED, SURFACE, Figure, finish, panel
from jouleline.report.numbers import number
from jouleline.report.ratios import ScalingPoint


def against_devices(
    points: Sequence[ScalingPoint],
    value: Callable[[ScalingPoint], float],
    title: str,
    label: str,
    curves: Sequence[tuple[str, Callable[[float], float], str]],
    stamp: str,
) -> Figure:
    """`value` of each workload against its device count, one line per workload and strategy from its reference.

    `curves` are (name, function of the device count, line style), drawn for comparison.
    """
    counts = sorted({point.devices for point in points})
    with panel() as drawn:
        axes = drawn.axes
        axes.set_title(title)
        axes.set_xscale("log", base=2)
        axes.axhline(1, color=MUTED, linewidth=1)
        for name, curve, style in curves:
            grid = [counts[0] * (counts[-1] / counts[0]) ** (i / 40) for i in range(41)]
            axes.plot(grid, [curve(x) for x in grid], color=INK, linestyle=style, linewidth=1.2, label=name)
        for family in sorted({point.family for point in points}):
            _family(drawn, [point for point in points if point.family == family], value)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xticks([], minor=True)
        axes.set_xlim(counts[0] / 1.25, counts[-1] * 1.25)
        top = max([1.0, *(value(point) for point in points)])
        axes.set_ylim(0, 1.12 * top)
        axes.set_xlabel("devices N")
        axes.set_ylabel(label)
        if curves:
            axes.legend(frameon=False, fontsize=9.5, loc="lower left", labelcolor="linecolor")
        return finish(drawn, _alt(title, points, value), stamp=stamp)


def _family(drawn, points: Sequence[ScalingPoint], value) -> None:
    origin = next((p for p in points if p.devices == p.reference), None)
    for strategy in sorted({p.strategy for p in points}, key=lambda item: item.name):
        line = sorted((p for p in points if p.strategy == strategy), key=lambda p: p.devices)
        path = line if origin is None or line[0].devices == origin.devices else [origin, *line]
        xs, ys = [p.devices for p in path], [value(p) for p in path]
        drawn.axes.plot(xs, ys, color=strategy.colour, linewidth=1.2, alpha=0.55)
        marks = drawn.axes.scatter(
            [p.devices for p in line],
            [value(p) for p in line],
            s=34,
            marker=strategy.marker,
            color=strategy.colour,
            edgecolors=SURFACE,
            linewidths=0.6,
            zorder=3,
        )
        drawn.label_points(
            marks, [f"{p.family}, {p.strategy.name}, N = {p.devices}: {number(value(p))}" for p in line]
        )


def _alt(title: str, points, value) -> str:
    parts = []
    for strategy in sorted(
        {p.strategy for p in points if p.devices != p.reference}, key=lambda item: item.name
    ):
        for count in sorted(
            {p.devices for p in points if p.strategy == strategy and p.devices != p.reference}
        ):
            values = [value(p) for p in points if p.strategy == strategy and p.devices == count]
            parts.append(f"{strategy.name} on {count}: {number(min(values))} to {number(max(values))}")
    return f"{title}. " + "; ".join(parts) + "."
