"""The saturation curve of matrix multiplications."""

from jouleline.report.canvas import INK, MUTED, SERIES, Figure, finish, panel
from jouleline.report.figures.axes import log_ticks
from jouleline.report.inputs import Row
from jouleline.report.numbers import known, quantity
from jouleline.report.points import span

Curves = dict[str, list[tuple[float, float]]]


def saturation(calibration: Row) -> Figure | None:
    """Reached FLOP/s against FLOP per launch, one line per precision. None where it was not measured."""
    curves, half = _read(calibration)
    if not curves:
        return None
    points = [point for curve in curves.values() for point in curve]
    xlim, ylim = span([x for x, _ in points]), span([y for _, y in points])
    with panel() as drawn:
        axes = drawn.axes
        axes.set_title("Matrix multiplication")
        axes.set(xscale="log", yscale="log", xlim=xlim, ylim=ylim)
        for index, (precision, curve) in enumerate(sorted(curves.items())):
            xs, ys = zip(*sorted(curve), strict=True)
            style = {"color": SERIES[index % len(SERIES)], "marker": "osD^v"[index % 5], "markersize": 4.5}
            axes.plot(xs, ys, label=precision or "value", **style)
        for line, (precision, value) in enumerate(sorted(half.items())):
            if xlim[0] < value < xlim[1]:
                axes.axvline(value, color=MUTED, linestyle=":", linewidth=1.2)
                words = f"\u00a0half saturation, {precision}"
                # Each label has its own line, because the half-saturation sizes of two precisions are often close.
                style = {
                    "textcoords": "offset points",
                    "xytext": (0, 12 * line),
                    "color": MUTED,
                    "fontsize": 9.5,
                }
                axes.annotate(words, (value, ylim[0]), va="bottom", **style)
        axes.legend(frameon=False, loc="upper left", labelcolor=INK)
        log_ticks(axes.xaxis, *xlim, "")
        log_ticks(axes.yaxis, *ylim, "")
        axes.set_xlabel("size of a launch (FLOP)")
        axes.set_ylabel("achieved (FLOP/s)")
        return finish(drawn, _alt(curves))


def _read(calibration: Row) -> tuple[Curves, dict[str, float]]:
    """(size, FLOP/s) points and the half-saturation size, each by precision."""
    curves: Curves = {}
    half: dict[str, float] = {}
    for item in calibration.get("quantities") or []:
        name, precision, size, value = (item.get(key) for key in ("quantity", "precision", "size", "value"))
        if name == "matmul_flops" and known(size) and known(value) and value > 0:
            curves.setdefault(str(precision or ""), []).append((size, value))
        if name == "half_saturation_flop" and known(value):
            half[str(precision or "")] = value
    return curves, half


def _alt(curves: Curves) -> str:
    best = {precision or "best": max(y for _, y in curve) for precision, curve in sorted(curves.items())}
    words = "; ".join(f"{precision} {quantity(value, 'FLOP/s')}" for precision, value in best.items())
    return f"Achieved FLOP/s against FLOP per launch. Highest: {words}."
