"""The saturation curve of matrix multiplications."""

from jouleline.report.canvas import INK, MUTED, SERIES, Figure, finish, panel
from jouleline.report.figures.axes import log_ticks
from jouleline.report.heldout import span
from jouleline.report.inputs import Row
from jouleline.report.numbers import known, quantity


def saturation(calibration: Row, stamp: str = "") -> Figure | None:
    """Achieved FLOP/s against FLOP per launch, one line per precision; None where it was not measured."""
    curves: dict[str, list[tuple[float, float]]] = {}
    half: dict[str, float] = {}
    for item in calibration.get("quantities") or []:
        name, precision = item.get("quantity"), str(item.get("precision") or "")
        if (
            name == "matmul_flops"
            and known(item.get("size"))
            and known(item.get("value"))
            and item["value"] > 0
        ):
            curves.setdefault(precision, []).append((item["size"], item["value"]))
        if name == "half_saturation_flop" and known(item.get("value")):
            half[precision] = item["value"]
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
            marker = "osD^v"[index % 5]
            axes.plot(
                xs,
                ys,
                color=SERIES[index % len(SERIES)],
                marker=marker,
                markersize=4.5,
                label=precision or "value",
            )
        for precision, value in sorted(half.items()):
            if xlim[0] < value < xlim[1]:
                axes.axvline(value, color=MUTED, linestyle=":", linewidth=1.2)
                axes.text(
                    value,
                    ylim[0],
                    f"\u00a0half saturation, {precision}",
                    color=MUTED,
                    fontsize=9.5,
                    va="bottom",
                )
        axes.legend(frameon=False, loc="upper left", labelcolor=INK)
        log_ticks(axes.xaxis, *xlim, "")
        log_ticks(axes.yaxis, *ylim, "")
        axes.set_xlabel("size of a launch (FLOP)")
        axes.set_ylabel("achieved (FLOP/s)")
        best = "; ".join(
            f"{p or 'best'} {quantity(max(y for _, y in c), 'FLOP/s')}" for p, c in sorted(curves.items())
        )
        return finish(drawn, f"Achieved FLOP/s against FLOP per launch. Highest: {best}.", stamp=stamp)
