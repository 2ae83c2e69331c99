"""The headline as plain lines for a terminal."""

from collections import Counter
from pathlib import Path

from jouleline.report import labels
from jouleline.report.inputs import Inputs, Row, holdout, series_of
from jouleline.report.numbers import known, percent, percent_interval
from jouleline.report.scores import finding, ours, paired, scored


def headline(inputs: Inputs, report: Path) -> list[str]:
    """What ran, the held-out error of the headline model and of the others, and the report's path."""
    outcomes = Counter(
        str(run.get("verdict") if run.get("status") == "ok" else run.get("status")) for run in inputs.runs
    )
    counts = ", ".join(f"{number} {word}" for word, number in sorted(outcomes.items()))
    total = f"{len(inputs.runs)} run{'' if len(inputs.runs) == 1 else 's'}"
    lines = [f"Campaign {inputs.campaign}: {total} ({counts or 'none'})."]
    notice = labels.estimate_notice(inputs.energy_sources)
    lines += [f"{notice.upper()}: computed from CPU time and declared watts."] if notice else []
    lines += [finding(inputs), *_table(inputs)]
    lines.append(f"Report: {report}")
    return [line.replace("\u202f", " ") for line in lines]


def _table(inputs: Inputs) -> list[str]:
    """One line per model and hold-out, the headline model's first."""
    series = ours(inputs)
    rows = [row for row in inputs.results if row.get("target") == "energy" and scored(row)]
    rows.sort(key=lambda row: (holdout(row), series_of(row) != series))
    width = max((len(holdout(row)) for row in rows), default=0)
    return [_line(row, max(width, 4)) for row in rows]


def _line(row: Row, width: int) -> str:
    name = labels.model(*series_of(row))
    bounds = percent_interval(row.get("mape_lo95"), row.get("mape_hi95"))
    line = f"  {holdout(row):<{width}} {name:<40} {percent(row['mape']):>8}  (95 % interval {bounds})"
    return f"{line}; to the paper's law {paired(row)}" if known(row.get("above_paper")) else line
