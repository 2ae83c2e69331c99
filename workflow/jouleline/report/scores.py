"""Scores in words for the sections, the terminal and the model card: which model, and its error."""

import re

from jouleline.report.inputs import Inputs, Row, Series, holdout, series_of
from jouleline.report.numbers import DASH, known, percent, percent_interval, points, share

SPLITS = {"H0": "unseen configurations of the grid", "H1": "an architecture that was left out"}
"""Hold-outs of the headline sentence, and what each asks."""

_LEVELS = {
    "H0": "grouped 70/30",
    "H1": "one architecture out",
    "H2": "extremes of each axis out",
    "H3": "small to large",
    "H4": "one parallel strategy out",
    "H5": "one device count out",
    "H6": "one device type out",
    "H7": "one precision, variant or family of models out",
    "H8": "outside tables",
}


def split_title(name: str) -> str:
    """A hold-out and what it leaves out: "H1, one architecture out"."""
    level = _LEVELS.get(re.split("[ _-]", name)[0])
    return f"{name}, {level}" if level else name


def ours(inputs: Inputs) -> Series:
    """The series of the headline, known before the run. The campaign chooses it; its score does not."""
    candidates = {series_of(row) for row in inputs.results} | {series_of(row) for row in inputs.predictions}
    honest = sorted(
        (s for s in candidates if s[0] == inputs.headline and not s[2]),
        key=lambda s: (s[1] != "modelled", s[1] or ""),
    )
    return honest[0] if honest else (inputs.headline, None, False)


def finding(inputs: Inputs) -> str:
    """The headline in one sentence, or why there is none."""
    series = ours(inputs)
    parts = []
    for split, words in SPLITS.items():
        row = inputs.result(series, split, "energy")
        if scored(row):
            bounds = percent_interval(row.get("mape_lo95"), row.get("mape_hi95"))
            parts.append(f"{percent(row['mape'])} on {words} ({split}; 95 % interval {bounds}{gap(row)})")
    if not parts:
        return f"No held-out error can be quoted for this campaign: {_why_not(inputs, series)}."
    what = "estimated energy" if "estimate" in inputs.energy_sources else "energy"
    errors = " and ".join(parts)
    floor = (inputs.validation.get("noise_floor") or {}).get("energy_cv")
    repeats = f" The same run, repeated, differs by {percent(floor)} (noise floor)." if known(floor) else ""
    model = f"The {inputs.headline} model, knowing only the configuration,"
    return f"{model} misses the {what} of a run by {errors}.{repeats}{_beside_paper(inputs, series)}"


def _beside_paper(inputs: Inputs, series: Series) -> str:
    """How far the model is ahead of the paper's law, paired run by run, and whether the runs can distinguish them."""
    parts = []
    for split in SPLITS:
        row = inputs.result(series, split, "energy")
        if scored(row) and known(row.get("above_paper")):
            parts.append(f"{paired(row)} in {split}{_told_apart(row)}")
    return f" Paired with the paper's law on the same runs: {'; '.join(parts)}." if parts else ""


def paired(row: Row) -> str:
    """The mean error minus that of the paper's law on the same predictions, in points, with its 95 % interval."""
    if not known(row.get("above_paper")):
        return DASH
    low, high = row.get("above_paper_lo95"), row.get("above_paper_hi95")
    bounds = f" ({points(low)} to {points(high)})" if known(low) and known(high) else ""
    return f"{points(row['above_paper'])} points{bounds}"


def _told_apart(row: Row) -> str:
    low, high = row.get("above_paper_lo95"), row.get("above_paper_hi95")
    if not (known(low) and known(high)):
        return ", too few families for an interval"
    return ", ahead" if high < 0 else ", behind" if low > 0 else ", not distinguished by these runs"


def gap(row: Row) -> str:
    """How many predictions the score leaves out, because a fit was not identified."""
    if not row.get("n_not_identified"):
        return ""
    return f"; {share(row.get('n'), asked(row))} predictions, the others not identified"


def asked(row: Row) -> int:
    """How many predictions a model was asked for, and how many of them it could not make."""
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


def gate_limit(inputs: Inputs, split: str, target: str) -> float | None:
    """The limit of the gate on our model's mean error in this hold-out, a fraction. None where there is no gate."""
    wanted = (split, target, inputs.headline, "mape")
    for gate in inputs.validation.get("gates") or []:
        if (holdout(gate), *(gate.get(key) for key in ("target", "model", "metric"))) == wanted:
            return gate.get("limit")
    return None
