"""The published scaling law beside ours: its form, its published and refitted coefficients, and its errors."""

from markupsafe import Markup

from jouleline.report import labels
from jouleline.report.blocks import Cell, Group, Section, Table, Text, columns
from jouleline.report.facts import first_fold, fits
from jouleline.report.inputs import Inputs, Row, holdout, series_of
from jouleline.report.numbers import DASH, interval, known, number, percent, percent_interval
from jouleline.report.scores import paired, scored, split_title

_LAW = Markup(
    "The law of Zoubeirou a Mayaki (arXiv 2606.23546) is <i>E</i> = κ <i>C</i><sup>a<sub>C</sub></sup> "
    "<i>M</i><sup>a<sub>M</sub></sup> η<sup>a<sub>η</sub></sup> Ψ(strategy), least squares of the logarithms: energy "
    "from compute <i>C</i>, memory traffic <i>M</i> and efficiency η. Ours, the roofline, adds up what a step takes: "
    "time is the smooth maximum of compute, memory and host time plus the communication that is not hidden, and "
    "energy is active-wait power times that time plus joules per FLOP, per byte of memory and per byte sent."
)
_MODES = (
    "How η is had: parametric, from the paper's curves normalised to η = 1 on one device (known before the run); "
    "modelled, from the roofline's own times (known before the run); measured, from the run itself (post-run: an "
    "upper bound on what a predictor can do)."
)
_WORDS = {
    "intercept": "ln κ",
    "log C": "a_C, exponent of compute C",
    "log M": "a_M, exponent of memory traffic M",
    "log eta": "a_η, exponent of efficiency η",
    "strategy=fsdp": "ln Ψ, fully sharded",
    "strategy=tp": "ln Ψ, tensor parallel",
    "strategy=dp": "ln Ψ, data parallel",
}
_NOTE = (
    "The published scores (adjusted R² 0.853, log-RMSE 0.385, n = 410) are in-sample; those here are held-out. The "
    "published Ψ absorb an η of 5.2 on one tensor-parallel device; with η normalised they need not. ln κ depends on "
    "the machine, so the two do not compare."
)

_PAIRED = (
    "Against the law: mean error less that of the paper's law with parametric η, paired on the same held-out "
    "predictions, in percentage points (below zero: smaller error than the law); the 95 % interval resamples whole "
    "workload families. Energy and C of the law are those of one step of a measured window, never of the window, "
    "whose number of steps is known only after the run; of runs measured elsewhere, those of the whole run."
)


def build(inputs: Inputs, stamp: str) -> Section:
    """Form, coefficients and errors of the law and of ours."""
    paper = next((fit for fit in fits(inputs) if fit.get("model") == "paper"), None)
    blocks = [
        Text(_LAW),
        Text(_MODES),
        _errors(inputs, stamp),
        _coefficients(first_fold(paper) if paper else {}, stamp),
    ]
    return Section("law", "The paper's law beside ours", [block for block in blocks if block])


def _published() -> dict[str, float]:
    from jouleline.model.laws.paper import PUBLISHED, PUBLISHED_STRATEGY

    shifts = {f"strategy={name}": shift for name, shift in PUBLISHED_STRATEGY.items() if shift}
    return {**PUBLISHED, **shifts}


def _coefficients(fold: Row, stamp: str) -> Table:
    published, fitted = _published(), fold.get("parameters") or {}
    names = [*published, *(name for name in fitted if name not in published and "(" not in name)]
    rows = []
    for name in names:
        ours = fitted.get(name)
        here: list[Cell | str] = [DASH, DASH]
        if ours and known(ours.get("value")) and ours.get("identified") is not False:
            here = [number(ours["value"], 4), interval(ours.get("lo95"), ours.get("hi95"))]
        elif ours:
            here = [Cell("not identified", "warn"), DASH]
        rows.append(
            [_WORDS.get(name, name.replace("strategy=", "ln Ψ, ")), _as_published(published.get(name)), *here]
        )
    heads = columns("Coefficient", "#Published", "#Refitted here, η parametric", "#95 % interval")
    return Table(
        "Coefficients of the paper's law: published, and refitted on this campaign",
        heads,
        rows,
        note=_NOTE,
        stamp=stamp,
    )


def _as_published(value: float | None) -> str:
    return DASH if value is None else f"{value:g}".replace("-", "−")


def _errors(inputs: Inputs, stamp: str) -> Table | None:
    shown = ("paper", inputs.headline)
    results = [row for row in inputs.results if row.get("model") in shown and row.get("target") == "energy"]
    rows: list = []
    for split in dict.fromkeys(holdout(row) for row in results):
        rows.append(Group(split_title(split)))
        rows += [_error_row(row) for row in results if holdout(row) == split]
    heads = columns(
        *("Model", "Efficiency η", "Known before the run", "#Energy MAPE", "#95 % interval", "#log-RMSE"),
        "#Against the law",
    )
    if not rows:
        return None
    return Table("The law and ours on the same held-out runs", heads, rows, note=_PAIRED, stamp=stamp)


def _error_row(row: Row) -> list[Cell | str]:
    name, mode, post_run = series_of(row)
    before = Cell("no, post-run", "warn") if post_run else "yes"
    values: list[Cell | str] = [Cell("not identified", "warn"), DASH, DASH, DASH]
    if scored(row):
        bounds = percent_interval(row.get("mape_lo95"), row.get("mape_hi95"))
        values = [percent(row["mape"]), bounds, number(row.get("log_rmse")), paired(row)]
    return [labels.model(name), mode or DASH, before, *values]
