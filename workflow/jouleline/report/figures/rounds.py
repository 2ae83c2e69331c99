"""Error against energy of a campaign that chose its own rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from jouleline.report.canvas import ACCENT, INK, SERIES, Figure, finish, panel
from jouleline.report.numbers import known, percent


def error_by_energy(rounds: Sequence[Mapping[str, Any]], stamp: str) -> Figure | None:
    """The expected error over the grid, and the error of each batch that was predicted before it was measured, against
    the energy spent when it was chosen. None before there is either."""
    expected = [
        (one["spent"]["kwh"], one["runs"][0]["expected_error_before"])
        for one in rounds
        if one["runs"] and known(one["runs"][0]["expected_error_before"])
    ]
    found = [
        (one["spent"]["kwh"], error)
        for one, error in zip(rounds, rounds[-1]["errors"], strict=False)
        if known(error)
    ]
    if not expected and not found:
        return None
    with panel(width=470) as drawn:
        axes = drawn.axes
        axes.set_title("Error against energy")
        if expected:
            axes.plot(*zip(*expected, strict=True), color=ACCENT, marker="o", label="expected over the grid")
        if found:
            axes.plot(
                *zip(*found, strict=True),
                color=SERIES[1],
                marker="s",
                linestyle="",
                label="of a batch, predicted before",
            )
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("energy of the jobs when it was chosen (kWh)")
        axes.legend(frameon=False, labelcolor=INK)
        words = ", ".join(percent(value) for _, value in expected)
        batches = ", ".join(percent(value) for _, value in found)
        alt = (
            f"Expected error by round: {words or 'not known'}. Error of each batch: {batches or 'not known'}."
        )
        return finish(drawn, alt, stamp=stamp)
