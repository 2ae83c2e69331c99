"""A campaign that chooses its own rows: its key `grid.frugal`, and the rounds chosen so far.

Standard library only: this runs every time Snakemake parses the workflow.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jouleline.campaign.grid import Run
from jouleline.errors import UserError
from jouleline.files import read_json

UNTIL = ("error", "kwh", "gpu_hours", "rounds")


def ends(frugal: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, float | None]:
    """The limits of the choice, by UNTIL: the smaller of `until` and the plan's budget; None where neither is given."""
    given = {key: (frugal["until"].get(key), plan.get(f"max_{key}")) for key in UNTIL}
    return {key: min((v for v in values if v is not None), default=None) for key, values in given.items()}


def for_asks(frugal: Mapping[str, Any]) -> bool:
    """Whether the asks of `choose` are to be predicted well, instead of the whole grid."""
    return frugal.get("target") == "choose"


def check(frugal: Mapping[str, Any] | None, runs: Sequence[Run], asks: Sequence[Any]) -> None:
    """Raise UserError where `grid.frugal` does not go with these runs and asks."""
    if frugal is None:
        return
    problem = _problem(frugal, runs, asks)
    if problem:
        raise UserError(f"grid.frugal{problem}")


def _problem(frugal: Mapping[str, Any], runs: Sequence[Run], asks: Sequence[Any]) -> str | None:
    missing = [key for key in ("first", "batch", "until") if key not in frugal]
    if missing:
        return f": {missing[0]} is missing; give first, batch and until"
    if not any(frugal["until"].get(key) is not None for key in UNTIL):
        return f".until says nothing; give one of {', '.join(UNTIL)}"
    if for_asks(frugal) and not asks:
        return ".target is choose, and nothing is asked; give the key `choose` an ask, or say target: grid"
    if frugal["first"] > len(runs):
        return (
            f".first is {frugal['first']}, and the grid has {len(runs)} runs; lower it, widen the grid, or leave "
            "grid.frugal out"
        )
    most = 1 + -(-(len(runs) - frugal["first"]) // frugal["batch"])
    rounds = frugal["until"].get("rounds")
    if rounds is not None and rounds > most:
        return (
            f".until.rounds is {rounds}, and the grid's {len(runs)} runs are all measured after {most}; lower it, or "
            "make the batch smaller"
        )
    held = next((run for run in runs if run.labels.get("split") == "holdout"), None)
    if held:
        return (
            f" learns from every run that it measures, and {held.run_id} is labelled holdout; leave out the label, or "
            "measure these rows in a campaign of their own"
        )
    return None


def path(results: str | Path, number: int) -> str:
    """The path of a round's rows."""
    return f"{results}/rounds/{number}/rows.json"


def documents(results: str | Path) -> Iterator[dict[str, Any]]:
    """The rounds that are there, in order."""
    number = 1
    while Path(path(results, number)).exists():
        yield read_json(path(results, number))
        number += 1


def run_ids(document: Mapping[str, Any]) -> list[str]:
    """The runs of a round. The round that ended the choice has none."""
    return [entry["run_id"] for entry in document["runs"]]
