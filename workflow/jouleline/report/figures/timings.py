"""The phases of the mean job, one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from jouleline.report.canvas import ACCENT, INK, MUTED, Figure, finish, panel
from jouleline.report.numbers import quantity


def mean_job(summary: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean time (s) of each phase. Each begins where the one before it ended. The window is emphasised."""
    with panel(width=470, height=90 + 22 * len(summary)) as drawn:
        axes, begin_s = drawn.axes, 0.0
        for place, entry in enumerate(summary):
            colour = ACCENT if entry["phase"] == "window_s" else MUTED
            axes.barh(place, entry["mean_s"], left=begin_s, height=0.6, color=colour)
            begin_s += entry["mean_s"]
            axes.text(begin_s, place, f" {quantity(entry['mean_s'], 's')}", va="center", color=INK)
        axes.set_yticks(range(len(summary)), [name(entry) for entry in summary], color=INK)
        axes.set_ylim(len(summary) - 0.4, -0.6)
        axes.set_xlim(0, 1.2 * begin_s or 1.0)  # room for the last figure
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("time since the job began (s)")
        parts = ", ".join(f"{name(entry)} {quantity(entry['mean_s'], 's')}" for entry in summary)
        return finish(drawn, f"Mean time of each phase of a job: {parts}.")


def name(entry: Mapping[str, Any]) -> str:
    """The name of a phase for a reader: the column without its unit."""
    return entry["phase"].removesuffix("_s").replace("_", " ")
