"""Figures of a choice: time against energy of every candidate with the front, and where the front's energy goes."""

from collections.abc import Mapping, Sequence
from typing import Any

from jouleline.report.canvas import ACCENT, HEIGHT, INK, MUTED, SERIES, SURFACE, Figure, finish, panel
from jouleline.report.figures.axes import duration_ticks, log_ticks
from jouleline.report.numbers import duration, percent, quantity
from jouleline.report.points import span

Entry = Mapping[str, Any]
PART_COLOURS = dict(zip(("compute", "memory", "communication", "host", "static"), SERIES, strict=False))
_MOST_BARS = 8


def front(every: Sequence[Sequence[float]], entries: Sequence[Entry], stamp: str) -> Figure:
    """Energy against time of all candidates (faint), and the front with its 95 % intervals, from the fastest."""
    with panel(height=HEIGHT + 40) as drawn:
        axes = drawn.axes
        axes.set_title("Time and energy of the candidates")
        axes.set(xscale="log", yscale="log")
        times, joules = ([pair[k] * scale for pair in every] for k, scale in ((0, 3600), (1, 1000)))
        axes.scatter(times, joules, s=9, color=MUTED, alpha=0.3, linewidths=0)
        xs, ys = [e["time_h"] * 3600 for e in entries], [e["energy_kwh"] * 1000 for e in entries]
        for entry, x, y in zip(entries, xs, ys, strict=True):
            _whiskers(axes, entry, x, y)
        axes.plot(xs, ys, color=ACCENT, linewidth=1.2)
        marks = axes.scatter(xs, ys, s=46, color=ACCENT, edgecolors=SURFACE, linewidths=0.8, zorder=4)
        hover = [f"{n}: {e['name']}, {_words(e)}" for n, e in enumerate(entries, 1)]
        drawn.label_points(marks, hover)
        for number in sorted({0, len(entries) // 2, len(entries) - 1}):  # labels of all entries would collide
            style = {"textcoords": "offset points", "xytext": (6, 6), "color": INK, "fontweight": "bold"}
            axes.annotate(str(number + 1), (xs[number], ys[number]), **style)
        axes.set_xlim(*span(times))
        axes.set_ylim(*span(joules))
        duration_ticks(axes.xaxis, *axes.get_xlim())
        log_ticks(axes.yaxis, *axes.get_ylim(), "Wh")
        axes.set_xlabel("time of the training steps")
        axes.set_ylabel("energy")
        alt = f"Energy against time of {len(every)} candidates. Front: {'; '.join(hover)}."
        return finish(drawn, alt, stamp=stamp)


def _whiskers(axes, entry: Entry, x: float, y: float) -> None:
    time, energy = (
        [entry[f"{name}_{end}95_{unit}"] for end in ("lo", "hi")]
        for name, unit in (("time", "h"), ("energy", "kwh"))
    )
    if None not in time:
        axes.plot([value * 3600 for value in time], [y, y], color=ACCENT, linewidth=1, alpha=0.35)
    if None not in energy:
        axes.plot([x, x], [value * 1000 for value in energy], color=ACCENT, linewidth=1, alpha=0.35)


def _words(entry: Entry) -> str:
    return f"{duration(entry['time_h'] * 3600)}, {quantity(entry['energy_kwh'] * 1000, 'Wh')}"


def parts(entries: Sequence[Entry], stamp: str) -> Figure | None:
    """Stacked bars of where the energy of the front goes; None where the model does not say."""
    known = [(n, e) for n, e in enumerate(entries, 1) if e["parts"] and None not in e["parts"].values()]
    if not known:
        return None
    stride = -(-len(known) // _MOST_BARS)
    shown = known[::stride]
    with panel(height=HEIGHT + 40) as drawn:
        axes = drawn.axes
        axes.set_title("Where the joules go")
        for place, (_, entry) in enumerate(shown):
            left, total = 0.0, entry["energy_kwh"] * 1000
            for part, share in entry["parts"].items():
                axes.barh(
                    place,
                    share * total,
                    left=left,
                    height=0.62,
                    color=PART_COLOURS[part],
                    label=part if not place else None,
                )
                left += share * total
        axes.set_yticks(range(len(shown)), [str(number) for number, _ in shown], color=INK)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_ylabel("number on the front")
        axes.set_xlabel("energy")
        axes.xaxis.set_major_locator(_five())
        axes.xaxis.set_major_formatter(lambda value, _: quantity(value, "Wh") if value else "0")
        axes.legend(frameon=False, fontsize=9.5, ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.17))
        words = "; ".join(
            f"{n}: " + ", ".join(f"{part} {percent(share)}" for part, share in entry["parts"].items())
            for n, entry in shown
        )
        return finish(drawn, f"Energy by part along the front. {words}.", stamp=stamp)


def _five():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)
