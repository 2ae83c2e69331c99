"""The roofline of a device with configurations on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from jouleline.report.canvas import ACCENT, HEIGHT, INK, MUTED, SERIES, SURFACE, Figure, Panel, finish, panel
from jouleline.report.figures.axes import log_ticks
from jouleline.report.numbers import percent, quantity
from jouleline.report.points import span


def roofline(
    roof: Mapping[str, Any],
    every: Sequence[Sequence[float]],
    entries: Sequence[Mapping[str, Any]],
    measured: Sequence[Sequence[Any]],
    stamp: str,
) -> Figure:
    """FLOP/s of one device against FLOP per byte: candidates (faint), numbered `entries` and `measured` runs (hollow)
    under the roof."""
    peak, bandwidth = roof["peak_flop_per_s"], roof["memory_byte_per_s"]
    xs, ys = [e["flop_per_byte"] for e in entries], [e["flop_per_s"] for e in entries]
    faint = ([pair[k] for pair in every] for k in (2, 3))
    with panel(height=HEIGHT + 40) as drawn:
        axes = drawn.axes
        axes.set_title(f"On the roof of one {roof['device']}"[:48])
        axes.set(xscale="log", yscale="log")
        axes.scatter(*faint, s=9, color=MUTED, alpha=0.3, linewidths=0, label="candidates")
        found = _measured(drawn, measured, roof)
        low, high = span([pair[2] for pair in every] + [run[0] for run in measured] + [peak / bandwidth])
        corner = peak / bandwidth
        axes.plot([low, corner, high], [min(peak, low * bandwidth), peak, peak], color=INK, linewidth=1.4)
        marks = axes.scatter(
            xs, ys, s=46, color=ACCENT, edgecolors=SURFACE, linewidths=0.8, zorder=4, label="front"
        )
        words = [
            f"{n}: {e['name']}, {quantity(e['flop_per_s'], 'FLOP/s')}, "
            f"{percent(e['flop_per_s'] / min(peak, e['flop_per_byte'] * bandwidth))} of the roof"
            for n, e in enumerate(entries, 1)
        ]
        drawn.label_points(marks, words)
        for number in sorted({0, len(entries) - 1}):
            style = {"textcoords": "offset points", "xytext": (6, -12), "color": INK, "fontweight": "bold"}
            axes.annotate(str(number + 1), (xs[number], ys[number]), **style)
        axes.set_xlim(low, high)
        axes.set_ylim(*span([pair[3] for pair in every] + [run[1] for run in measured] + [peak]))
        log_ticks(axes.xaxis, *axes.get_xlim(), "")
        log_ticks(axes.yaxis, *axes.get_ylim(), "")
        axes.set_xlabel("FLOP per byte of memory traffic")
        axes.set_ylabel("FLOP/s of one device")
        if measured:
            axes.legend(
                frameon=False, fontsize=9.5, ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.17)
            )
        text = f"Roof by {roof['source']}: {quantity(peak, 'FLOP/s')}, {quantity(bandwidth, 'B/s')}. "
        return finish(drawn, text + "; ".join(words) + "." + found, stamp=stamp)


def _measured(drawn: Panel, runs: Sequence[Sequence[Any]], roof: Mapping[str, Any]) -> str:
    """Draw the measured runs as hollow marks. Returns in words what they reach, and how many are above the roof."""
    if not runs:
        return ""
    xs, ys, names = zip(*runs, strict=True)
    style = {"facecolors": "none", "edgecolors": SERIES[1], "linewidths": 1.2, "marker": "D"}
    marks = drawn.axes.scatter(xs, ys, s=26, zorder=3, label="measured runs", **style)
    hover = [f"{name}, {quantity(y, 'FLOP/s')}, measured" for name, y in zip(names, ys, strict=True)]
    drawn.label_points(marks, hover)
    text = f" Measured: {len(runs)} runs, {quantity(min(ys), 'FLOP/s')} to {quantity(max(ys), 'FLOP/s')}."
    shares = [y / min(roof["peak_flop_per_s"], x * roof["memory_byte_per_s"]) for x, y in zip(xs, ys)]
    above = [share for share in shares if share > 1]
    if above:
        text += f" {len(above)} of them lie above the roof, the highest at {percent(max(above))} of it."
    return text
