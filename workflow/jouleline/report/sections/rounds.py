"""The rounds of a campaign that chose its own rows: expected error, found error, and energy spent."""

from jouleline.report.blocks import Panels, Section, Table, Text, columns
from jouleline.report.figures.rounds import error_by_energy
from jouleline.report.inputs import Inputs, Row
from jouleline.report.numbers import count, number, percent

_HOW = (
    "The campaign measured a first set and then, round after round, the runs that lower the expected error over "
    "{target} most per joule. Each batch was predicted before it was measured. Its runs are those the model knew "
    "least of, so their error is no estimate of the error over {target}: it is rather above it."
)
_TARGETS = {"grid": "its whole grid", "choose": "the candidates of its asks"}


def build(inputs: Inputs, stamp: str) -> Section | None:
    """Figure and tables of the rounds. None where every row of the grid was to be measured."""
    rounds = inputs.rounds
    if not rounds:
        return None
    measured, planned = rounds[-1]["spent"]["runs"], inputs.planned
    of = f" of {count(planned)} of the grid" if planned else ""
    end = rounds[-1]["stopped"] or "the choice is not at its end"
    found = Text(
        f"{count(measured)} runs{of} were measured in {number(rounds[-1]['spent']['kwh'])} kWh: {end}.",
        "lead",
    )
    blocks: list = [found, Text(_HOW.format(target=_TARGETS[rounds[-1].get("target", "grid")]))]
    figure = error_by_energy(rounds, stamp)
    if figure:
        blocks.append(Panels("Error against energy", [figure]))
    heads = columns("#Round", "#Runs", "#kWh before it", "#Expected error", "#Error of its runs")
    rows = [_round(rounds, number) for number in range(len(rounds)) if rounds[number]["runs"]]
    note = "Energy of the jobs: mean power of the window times the whole time of a job."
    blocks.append(Table("Rounds", heads, rows, note=note, stamp=stamp))
    blocks.append(_choices(rounds, stamp))
    left = [[entry["run_id"], entry["reason"]] for entry in rounds[-1]["left_out"] or rounds[0]["left_out"]]
    if left:
        blocks.append(Table("Left out of the choice", columns("Run", "Why"), left, folded=True))
    return Section("rounds", "Rows that were chosen", blocks)


def _round(rounds: list[Row], index: int) -> list[str]:
    one = rounds[index]
    errors = rounds[-1]["errors"]
    error = errors[index] if index < len(errors) else None
    expected = one["runs"][0]["expected_error_before"]
    cells = (count(one["round"]), count(len(one["runs"])), number(one["spent"]["kwh"]))
    return [*cells, percent(expected), percent(error)]


def _choices(rounds: list[Row], stamp: str) -> Table:
    rows = [
        [count(one["round"]), entry["run_id"], number(entry["job_kwh"]), entry["reason"]]
        for one in rounds
        for entry in one["runs"]
    ]
    heads = columns("#Round", "Run", "#Expected kWh", "Why")
    return Table("Every choice and its reason", heads, rows, folded=True, stamp=stamp)
