"""The headline: how wrong the model is on runs it has never seen, beside what it cannot beat and what it must."""

import re

from jouleline.report import labels
from jouleline.report.blocks import Panels, Section, Text, Tile, Tiles
from jouleline.report.figures.forest import error_forest
from jouleline.report.inputs import Inputs, Row, Series, holdout, series_of
from jouleline.report.numbers import DASH, count, known, percent, percent_interval, points, share

_SPLITS = {"H0": "unseen configurations of the grid", "H1": "an architecture that was left out"}
_LEVELS = {
    "H0": "grouped 70/30",
    "H1": "one architecture out",
    "H2": "extremes of each axis out",
    "H3": "small to large",
    "H4": "one parallel strategy out",
    "H5": "one device count out",
    "H6": "one device type out",
    "H7": "one precision or variant out",
    "H8": "outside tables",
}
_FOREST_NOTE = (
    "Hollow marks are post-run: they use the run's own measured time or efficiency, so they are bounds, not "
    "predictions. Intervals are 95 %, resampled by workload family. MAPE is the mean absolute percentage "
    "error. The noise floor is the coefficient of variation of replicates: what differs by less is not told apart "
    "by these runs."
)


def split_title(name: str) -> str:
    """A hold-out and what it leaves out: "H1, one architecture out"."""
    level = _LEVELS.get(re.split("[ _-]", name)[0])
    return f"{name}, {level}" if level else name


def ours(inputs: Inputs) -> Series:
    """The series the headline is about, known before the run. Chosen by the campaign, never by its score."""
    candidates = {series_of(row) for row in inputs.results} | {series_of(row) for row in inputs.predictions}
    honest = sorted(
        (s for s in candidates if s[0] == inputs.headline and not s[2]),
        key=lambda s: (s[1] != "modelled", s[1] or ""),
    )
    return honest[0] if honest else (inputs.headline, None, False)


def build(inputs: Inputs, stamp: str) -> Section:
    """Sentence, tiles, and the errors of all models side by side."""
    lead = " ".join(part for part in (_unfinished(inputs), finding(inputs)) if part)
    blocks: list[object] = [Text(lead, "lead"), Tiles(_tiles(inputs))]
    wanted = [("energy", split) for split in inputs.split_names] + [("time", "H0")]
    forests = [_forest(inputs, split, stamp, target) for target, split in wanted]
    forests = [figure for figure in forests if figure]
    if forests:
        blocks.append(Panels("Error on held-out runs", forests, note=_FOREST_NOTE))
    return Section("headline", "Headline", blocks)


def _unfinished(inputs: Inputs) -> str:
    """What the campaign still lacks, where runs of its grid were not tried yet."""
    lacking = (inputs.planned or 0) - len(inputs.runs)
    if lacking <= 0:
        return ""
    return f"Partial: {count(len(inputs.runs))} of the {count(inputs.planned)} runs of the grid are measured."


def finding(inputs: Inputs) -> str:
    """The headline in one sentence, or why there is none."""
    series = ours(inputs)
    parts = []
    for split, words in _SPLITS.items():
        row = inputs.result(series, split, "energy")
        if scored(row):
            bounds = percent_interval(row.get("mape_lo95"), row.get("mape_hi95"))
            parts.append(f"{percent(row['mape'])} on {words} ({split}; 95 % interval {bounds}{_gap(row)})")
    if not parts:
        return f"No held-out error can be quoted for this campaign: {_why_not(inputs, series)}."
    what = "estimated energy" if "estimate" in inputs.energy_sources else "energy"
    errors = " and ".join(parts)
    floor = (inputs.validation.get("noise_floor") or {}).get("energy_cv")
    repeats = f" The same run, repeated, differs by {percent(floor)} (noise floor)." if known(floor) else ""
    model = f"The {inputs.headline} model, knowing only the configuration,"
    return f"{model} misses the {what} of a run by {errors}.{repeats}{_beside_paper(inputs, series)}"


def _beside_paper(inputs: Inputs, series: Series) -> str:
    """How far the model is ahead of the paper's law, paired run by run, and whether these runs tell them apart."""
    parts = []
    for split in _SPLITS:
        row = inputs.result(series, split, "energy")
        if scored(row) and known(row.get("above_paper")):
            parts.append(f"{paired(row)} in {split}{_told_apart(row)}")
    return f" Paired with the paper's law on the same runs: {'; '.join(parts)}." if parts else ""


def paired(row: Row) -> str:
    """The mean error less that of the paper's law on the same predictions, in points, with its 95 % interval."""
    if not known(row.get("above_paper")):
        return DASH
    low, high = row.get("above_paper_lo95"), row.get("above_paper_hi95")
    bounds = f" ({points(low)} to {points(high)})" if known(low) and known(high) else ""
    return f"{points(row['above_paper'])} points{bounds}"


def _told_apart(row: Row) -> str:
    low, high = row.get("above_paper_lo95"), row.get("above_paper_hi95")
    if not (known(low) and known(high)):
        return ", too few families for an interval"
    return ", ahead" if high < 0 else ", behind" if low > 0 else ", not told apart by these runs"


def _gap(row: Row) -> str:
    """How many predictions the score leaves out, where a fit was not identified."""
    if not row.get("n_not_identified"):
        return ""
    return f"; {share(row.get('n'), asked(row))} predictions, the others not identified"


def asked(row: Row) -> int:
    """How many predictions were asked of a model, with those that it could not make."""
    return (row.get("n") or 0) + (row.get("n_not_identified") or 0)


def scored(row: Row | None) -> bool:
    """True where a result has a number that may be quoted."""
    return bool(row) and row.get("identified") is not False and known(row.get("mape"))


def _why_not(inputs: Inputs, series: Series) -> str:
    if not any(run.get("status") == "ok" for run in inputs.runs):
        return "no run finished" if inputs.runs else "it has no runs"
    reasons = {str(row["reason"]) for row in inputs.results if series_of(row) == series and row.get("reason")}
    reasons |= {str(split["reason"]) for split in inputs.splits if split.get("reason")}
    return "; ".join(sorted(reasons)) or f"the {inputs.headline} model was not judged on a hold-out"


def _tiles(inputs: Inputs) -> list[Tile]:
    series = ours(inputs)
    tiles = [_error_tile(inputs, series, split, "energy") for split in _SPLITS]
    tiles.append(_error_tile(inputs, series, "H0", "time"))
    floor = inputs.validation.get("noise_floor") or {}
    tiles.append(
        Tile(
            "Noise floor of energy (CV of replicates)",
            percent(floor.get("energy_cv")),
            f"time {percent(floor.get('time_cv'))}",
            f"{count(floor.get('n_groups'))} replicated configuration{'' if floor.get('n_groups') == 1 else 's'}",
        )
    )
    fine = [run for run in inputs.runs if run.get("status") == "ok" and run.get("verdict") != "invalid"]
    degraded = sum(run.get("verdict") == "degraded" for run in fine)
    tiles.append(
        Tile(
            "Runs fit for use",
            f"{count(len(fine))} of {count(len(inputs.runs))}",
            f"{degraded} of them degraded" if degraded else "none of them degraded",
            f"{len({run.get('family') for run in fine})} workload families",
        )
    )
    return tiles


def _error_tile(inputs: Inputs, series: Series, split: str, target: str) -> Tile:
    row = inputs.result(series, split, target)
    label = f"{target.capitalize()} error, {split_title(split)} (MAPE)"
    if not scored(row):
        reason = (row or {}).get("reason")
        return Tile(label, DASH, "not identified" if row else "not judged", str(reason) if reason else "")
    bounds = f"95 % CI: {percent_interval(row.get('mape_lo95'), row.get('mape_hi95'))}"
    context = "; ".join(
        part for part in (_gap(row).removeprefix("; "), _rivals(inputs, series, split, target)) if part
    )
    return Tile(label, percent(row["mape"]), bounds, context)


def _rivals(inputs: Inputs, series: Series, split: str, target: str) -> str:
    """The best of the other models that know nothing of the run (ours with a term switched off are none)."""
    honest = [
        row
        for row in inputs.results
        if (holdout(row), row.get("target")) == (split, target)
        and not row.get("post_run")
        and series_of(row) != series
        and not labels.is_variant(str(row.get("model")))
        and scored(row)
    ]
    if not honest:
        return ""
    best = min(honest, key=lambda row: row["mape"])
    own = inputs.result(series, split, target) or {}
    fewer = f", scored on {count(best.get('n'))} predictions" if best.get("n") != own.get("n") else ""
    return f"best other model: {labels.model(*series_of(best))}, {percent(best['mape'])}{fewer}"


def _forest(inputs: Inputs, split: str, stamp: str, target: str):
    rows = [row for row in inputs.results if (holdout(row), row.get("target")) == (split, target)]
    if not any(scored(row) for row in rows):
        return None
    floor = (inputs.validation.get("noise_floor") or {}).get(f"{target}_cv")
    title = f"{target.capitalize()}, {split_title(split)}"
    return error_forest(rows, title, inputs.headline, floor, gate_limit(inputs, split, target), stamp)


def gate_limit(inputs: Inputs, split: str, target: str) -> float | None:
    """The limit of the gate on our model's mean error in this hold-out, a fraction; None where there is none."""
    wanted = (split, target, inputs.headline, "mape")
    for gate in inputs.validation.get("gates") or []:
        if (holdout(gate), *(gate.get(key) for key in ("target", "model", "metric"))) == wanted:
            return gate.get("limit")
    return None
