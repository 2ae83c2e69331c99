"""Where the time of a measured job went: the measured part, and the rest by phase."""

from jouleline.reduce import timings
from jouleline.report.blocks import Panels, Section, Table, columns
from jouleline.report.figures.timings import mean_job, name
from jouleline.report.inputs import Inputs
from jouleline.report.numbers import count, number, percent


def build(inputs: Inputs, stamp: str) -> Section | None:
    """A bar of the mean job and a table of its phases. None where no run has times."""
    summary = timings.summary(inputs.timings)
    if not summary:
        return None
    rows = [
        [
            name(entry),
            entry["text"],
            count(entry["runs"]),
            number(entry["mean_s"]),
            number(entry["most_s"]),
            percent(entry["share"]),
        ]
        for entry in summary
    ]
    heads = columns("Phase", "What it is", "#Runs", "#Mean (s)", "#Longest (s)", "#Share")
    note = (
        "Of the runs that are ok and whose time in the phase is known. Time in the queue and beside the agent is "
        "Slurm's accounting, in whole seconds, and is known only there; a phase that no run knows is left out. "
        "Per run: tables/timings.parquet."
    )
    blocks = [
        Panels("The mean job", [mean_job(summary)], wide=True, note=note),
        Table("Where the time of a job went", heads, rows),
    ]
    return Section("timings", "Time of a job", blocks)
