"""Facts as pairs and tables, and the fit of each model that a section shows."""

from jouleline.report import labels
from jouleline.report.blocks import Cell, Table, columns
from jouleline.report.inputs import Inputs, Row
from jouleline.report.numbers import text


def flatten(value: object, prefix: str = "", exact: bool = True) -> list[tuple[str, str]]:
    """A nested mapping as sorted ("a.b", text) pairs. Lists of scalars are on one line.

    `exact` shows a fraction as the user set it. Otherwise it was measured and gets four digits.
    """
    if isinstance(value, dict):
        items = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in sorted(value.items())]
        return [pair for key, item in items for pair in flatten(item, key, exact)]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [pair for n, item in enumerate(value) for pair in flatten(item, f"{prefix}[{n}]", exact)]
    if isinstance(value, list):
        return [(prefix, ", ".join(flatten(item, "", exact)[0][1] for item in value) or "none")]
    return [(prefix, f"{value:.9g}" if exact and isinstance(value, float) else text(value))]


def facts(caption: str, pairs: list[tuple[str, str]], folded: bool = False) -> Table | None:
    """A two-column table of facts; None where there are none."""
    rows = [[Cell(key), value] for key, value in pairs]
    return Table(caption, columns("Key", "Value"), rows, folded=folded) if rows else None


def fits(inputs: Inputs) -> list[Row]:
    """One fit per model: the one on all runs if there is one, else the first by split. Our models come first."""
    best: dict[str, Row] = {}
    for fit in sorted(inputs.fits, key=lambda fit: (fit.get("split") != "all", str(fit.get("split")))):
        best.setdefault(str(fit.get("model")), fit)
    return sorted(best.values(), key=lambda fit: labels.model_rank(str(fit.get("model"))))


def first_fold(fit: Row) -> Row:
    """The first fold of a fit; an empty one where the fit has none."""
    return next(iter(fit.get("folds") or []), {})
