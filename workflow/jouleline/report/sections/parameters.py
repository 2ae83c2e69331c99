"""What was fitted: every parameter with its 95 % interval, and whether the data identify it."""

from jouleline.report import labels
from jouleline.report.blocks import Cell, Group, Section, Table, Text, columns
from jouleline.report.facts import first_fold, fits
from jouleline.report.inputs import Inputs, Row
from jouleline.report.numbers import DASH, count, known, quantity, text

_INTRODUCTION = (
    "Fitted on all valid runs where that fit exists, otherwise on the first fold of the first hold-out; the "
    "held-out errors above come from fits that never saw the runs they predict. A parameter that the data cannot "
    "identify is named but not quoted."
)

_MOST_VALUES = 12  # of a list of diagnostics; the fit's own file has all of them


def build(inputs: Inputs, stamp: str) -> Section:
    """The parameters of every model, and the diagnostics of the fits."""
    chosen = fits(inputs)
    if not chosen:
        return Section("parameters", "Coefficients", [Text("No model was fitted in this campaign.", "warn")])
    ours = [fit for fit in chosen if fit.get("model") == inputs.headline]
    others = [fit for fit in chosen if fit.get("model") != inputs.headline]
    name = labels.model(inputs.headline)
    tables = [_table(f"Parameters: {name}", ours, stamp)] if ours else []
    tables += [_table("Parameters of the other models", others, stamp, folded=True)] if others else []
    return Section("parameters", "Coefficients", [Text(_INTRODUCTION), *tables, _diagnostics(chosen)])


def _table(caption: str, chosen: list[Row], stamp: str, folded: bool = False) -> Table:
    rows: list = []
    for fit in chosen:
        fold = first_fold(fit)
        where = (
            "all valid runs"
            if fit.get("split") == "all"
            else f"fold {fold.get('fold')} of {fit.get('split')}"
        )
        runs = f"{count(fold.get('n_train'))} runs"
        rows.append(Group(f"{labels.model(str(fit.get('model')))}, fitted on {where} ({runs})"))
        entries = [] if fold.get("identified") is False else (fold.get("parameters") or {}).items()
        rows += [_row(key, value) for key, value in entries] or [_none(fold)]
    heads = columns("Parameter", "#Value", "#95 % interval", "Meaning")
    return Table(caption, heads, rows, folded=folded, stamp=stamp)


def _row(name: str, value: Row) -> list[Cell | str]:
    unit = str(value.get("unit") or "")
    meaning = labels.parameter(name)
    if value.get("identified") is False or not known(value.get("value")):
        return [name, Cell("not identified", "warn"), DASH, meaning]
    bounds = [value.get("lo95"), value.get("hi95")]
    span = " to ".join(quantity(bound, unit) for bound in bounds) if all(map(known, bounds)) else DASH
    return [name, quantity(value["value"], unit), span, meaning]


def _none(fold: Row) -> list[Cell | str]:
    word = Cell("not identified", "warn") if fold.get("identified") is False else DASH
    return ["all", word, DASH, str(fold.get("reason") or "it has no parameters")]


def _diagnostics(chosen: list[Row]) -> Table:
    rows: list = []
    for fit in chosen:
        found = sorted((first_fold(fit).get("diagnostics") or {}).items())
        rows += [Group(labels.model(str(fit.get("model"))))] if found else []
        rows += [[key.replace("_", " "), _diagnostic(value)] for key, value in found]
    return Table("Diagnostics of these fits", columns("Diagnostic", "Value"), rows, folded=True)


def _diagnostic(value) -> str:
    if isinstance(value, dict):
        # Curves inside a diagnostic (profile likelihoods) are for plots. Their bounds are shown beside them.
        short = {
            key: item
            for key, item in value.items()
            if not (isinstance(item, list) and len(item) > _MOST_VALUES)
        }
        return "; ".join(_entry(key, item) for key, item in short.items()) or DASH
    if isinstance(value, list | tuple):
        shown = ", ".join(_diagnostic(item) for item in value[:_MOST_VALUES])
        return f"{shown}, … ({len(value)} values)" if len(value) > _MOST_VALUES else shown or "none"
    return text(value)


def _entry(key: str, item) -> str:
    return f"{key} ({_diagnostic(item)})" if isinstance(item, dict) else f"{key} {_diagnostic(item)}"
