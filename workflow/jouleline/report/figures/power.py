"""Power traces with the regions in which energy was counted."""

from jouleline.report import labels
from jouleline.report.canvas import ACCENT, GRID, INK, MUTED, SERIES, Figure, finish, panel
from jouleline.report.numbers import known, quantity
from jouleline.report.trace import Trace

_SHORT_NAMES = {"warmup": "warm-up", "window": "window", "evaluation": "eval."}
_REGION_NAMES = {"warmup": "warm-up", "window": "measured window", "evaluation": "evaluation"}


def power_trace(trace: Trace, idle_w: float | None, mean_w: float | None, stamp: str) -> Figure:
    """Power over time of one run: shaded regions, a dashed line at the window's mean, a dotted line at idle."""
    with panel(width=470, height=260) as drawn:
        axes = drawn.axes
        axes.set_title(labels.short(trace.run))
        for index, (name, times, powers) in enumerate(trace.lines):
            axes.plot(times, powers, color=SERIES[index % len(SERIES)], linewidth=1.3, label=name, zorder=3)
        _regions(axes, trace)
        top = max((p for _, _, powers in trace.lines for p in powers if known(p)), default=1.0)
        axes.set_ylim(0, 1.22 * max(top, mean_w or 0, idle_w or 0))
        _levels(axes, trace, idle_w, mean_w)
        if len(trace.lines) > 1:
            axes.legend(frameon=False, fontsize=9.5, ncols=4, loc="lower right")
        axes.set_xlabel("time since the start of the warm-up (s)" if "warmup" in trace.spans else "time (s)")
        axes.set_ylabel("power (W)" + (", estimated" if stamp else ""))
        return finish(drawn, _alt(trace, idle_w, mean_w), _caption(trace), stamp)


def _regions(axes, trace: Trace) -> None:
    fills = {"warmup": (GRID, 0.7), "window": (ACCENT, 0.14), "evaluation": (GRID, 0.7)}
    first = min(t for _, times, _ in trace.lines for t in times)
    last = max(t for _, times, _ in trace.lines for t in times)
    for name, (start, end) in trace.spans.items():
        colour, alpha = fills[name]
        axes.axvspan(start, end, color=colour, alpha=alpha, linewidth=0, zorder=0)
        share = (end - start) / (last - first)
        words = next((w for w in (_REGION_NAMES[name], _SHORT_NAMES[name]) if share > 0.0155 * len(w)), "")
        style = {"ha": "center", "va": "top", "fontsize": 10, "color": ACCENT if name == "window" else MUTED}
        axes.text((start + end) / 2, 0.97, words, transform=axes.get_xaxis_transform(), **style)
    axes.set_xlim(first, last)


def _levels(axes, trace: Trace, idle_w: float | None, mean_w: float | None) -> None:
    devices = trace.devices  # the table has the power of all of them together, a line that of one
    right = axes.get_xlim()[1]
    if known(idle_w):
        axes.axhline(idle_w / devices, color=MUTED, linestyle=":", linewidth=1.2)
        axes.text(right, idle_w / devices, "idle\u00a0", color=MUTED, ha="right", va="bottom", fontsize=9.5)
    if known(mean_w) and "window" in trace.spans:
        axes.plot(
            trace.spans["window"], [mean_w / devices] * 2, color=INK, linestyle="--", linewidth=1.4, zorder=4
        )


def _caption(trace: Trace) -> str:
    spans = [
        f"{_REGION_NAMES[name]} {quantity(end - start, 's')}" for name, (start, end) in trace.spans.items()
    ]
    node = f"node {trace.node}, " if (trace.run.get("nodes") or 1) > 1 else ""
    return f"{trace.run.get('run_id')}: {node}{trace.method}; {', '.join(spans)}."


def _alt(trace: Trace, idle_w, mean_w) -> str:
    regions = ", ".join(f"{_REGION_NAMES[n]} from {s:.1f} to {e:.1f} s" for n, (s, e) in trace.spans.items())
    level = f" Mean power in the window {quantity(mean_w, 'W')}, idle {quantity(idle_w, 'W')}."
    return f"Power over time of run {trace.run.get('run_id')}; {regions or 'no regions marked'}.{level}"
