"""The headline: the error of the model on runs that it has never seen, the noise that it cannot beat, and the gate."""

from jouleline.report import labels
from jouleline.report.blocks import Panels, Section, Text, Tile, Tiles
from jouleline.report.figures.forest import error_forest
from jouleline.report.inputs import Inputs, Series, holdout, series_of
from jouleline.report.numbers import DASH, count, percent, percent_interval
from jouleline.report.scores import SPLITS, finding, gap, gate_limit, ours, scored, split_title

_FOREST_NOTE = (
    "Hollow marks are post-run: they use the run's own measured time or efficiency, so they are bounds, not "
    "predictions. Intervals are 95 %, resampled by workload family. MAPE is the mean absolute percentage "
    "error. The noise floor is the coefficient of variation of replicates: a smaller difference is not "
    "distinguished by these runs."
)


def build(inputs: Inputs, stamp: str) -> Section:
    """Sentence, tiles, and the errors of all models side by side."""
    lead = " ".join(part for part in (_unfinished(inputs), finding(inputs)) if part)
    blocks: list[object] = [Text(lead, "lead"), Tiles(_tiles(inputs))]
    first = [("energy", split) for split in SPLITS] + [("time", "H0")]
    rest = [("energy", split) for split in inputs.split_names if split not in SPLITS]
    for wanted, title in ((first, "Error on held-out runs"), (rest, "Error on the other hold-outs")):
        forests = [_forest(inputs, split, stamp, target) for target, split in wanted]
        forests = [figure for figure in forests if figure]
        if forests:
            blocks.append(Panels(title, forests, note=_FOREST_NOTE, folded=wanted is rest))
    return Section("headline", "Headline", blocks)


def _unfinished(inputs: Inputs) -> str:
    """What the campaign still lacks, where runs of its grid were not tried yet."""
    lacking = (inputs.planned or 0) - len(inputs.runs)
    if lacking <= 0:
        return ""
    return f"Partial: {count(len(inputs.runs))} of the {count(inputs.planned)} runs of the grid are measured."


def _tiles(inputs: Inputs) -> list[Tile]:
    series = ours(inputs)
    tiles = [_error_tile(inputs, series, split, "energy") for split in SPLITS]
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
        part for part in (gap(row).removeprefix("; "), _rivals(inputs, series, split, target)) if part
    )
    return Tile(label, percent(row["mape"]), bounds, context)


def _rivals(inputs: Inputs, series: Series, split: str, target: str) -> str:
    """The best of the other models that know nothing of the run. Our model with a term switched off does not count."""
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
    stamp = stamp if target == "energy" else ""  # times are measured
    return error_forest(rows, title, inputs.headline, floor, gate_limit(inputs, split, target), stamp)
