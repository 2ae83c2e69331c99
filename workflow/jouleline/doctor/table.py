"""The findings as a table for a terminal: check, found, needed, remedy."""

import textwrap
from collections.abc import Iterable

from jouleline.doctor.checks import FAILED, Finding

_TITLES = ("", "check", "found", "needed", "remedy")
_WIDEST = (6, 16, 44, 30, 52)


def failed(findings: Iterable[Finding]) -> bool:
    """Whether something needed is missing."""
    return any(finding.state == FAILED for finding in findings)


def text(findings: Iterable[Finding], host: str) -> str:
    """Lines of at most 160 characters, one or more per finding, and the number of failed findings."""
    findings = list(findings)
    rows = [(one.state, one.check, one.found, one.needed, one.remedy) for one in findings]
    widths = [
        min(most, max(len(row[column]) for row in [_TITLES, *rows])) for column, most in enumerate(_WIDEST)
    ]
    lines = [f"node {host}", *_lines(_TITLES, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    for row in rows:
        lines += _lines(row, widths)
    bad = sum(one.state == FAILED for one in findings)
    lines.append(f"{bad} of {len(findings)} checks failed" if bad else "nothing that is needed is missing")
    return "\n".join(lines)


def _lines(row: tuple[str, ...], widths: list[int]) -> list[str]:
    cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    whole = [cell + [""] * (height - len(cell)) for cell in cells]
    return [
        "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for parts in zip(*whole, strict=True)
    ]
