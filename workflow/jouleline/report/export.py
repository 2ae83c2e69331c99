"""The parts of a page as files: every figure as SVG, PDF and PNG, every table as CSV, and the whole as JSON."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jouleline.files import write_json
from jouleline.report.blocks import Cell, Group, Panels, Table
from jouleline.report.canvas import KINDS, Figure
from jouleline.report.numbers import DASH, Shown

_LONGEST_NAME = 64


def write(page: Any, folder: Path) -> None:
    """Write `figures/NAME.KIND`, `tables/NAME.csv` and `report.json` of a `page.Page` into `folder`."""
    names: dict[str, int] = {}
    for part in ("figures", "tables"):
        (folder / part).mkdir(parents=True)
    sections = []
    for section in page.sections:
        blocks = [_block(block, section.anchor, names, folder) for block in section.blocks]
        sections.append({"anchor": section.anchor, "title": section.title, "blocks": blocks})
    head = {"schema": 1, "title": page.title, "subtitle": page.subtitle, "stamp": page.stamp or None}
    write_json(folder / "report.json", {**head, "sections": sections})


def _block(block: Any, anchor: str, names: dict[str, int], folder: Path) -> dict[str, Any]:
    """A block as JSON. Its figures and tables are written to files of their own."""
    if isinstance(block, Table):
        return {"kind": "table", **_table(block, _name(f"{anchor}-{block.caption}", names), folder)}
    if isinstance(block, Panels):
        figures = [
            _figure(one, _name(f"{anchor}-{one.title or block.title}", names), folder)
            for one in block.figures
        ]
        return {"kind": "panels", "title": block.title, "note": block.note or None, "figures": figures}
    if block.kind == "tiles":
        return {"kind": "tiles", "tiles": [vars(tile) for tile in block.tiles]}
    return {"kind": "text", "tone": block.tone or None, "text": re.sub(r"</?\w+>", "", str(block.text))}


def _name(words: str, names: dict[str, int]) -> str:
    """A file name of plain letters, without the counts of a caption. It gets a number where the name is taken."""
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\([^)]*\)", "", words).lower())[:_LONGEST_NAME].strip("-")
    names[plain] = names.get(plain, 0) + 1
    return plain if names[plain] == 1 else f"{plain}-{names[plain]}"


def _figure(figure: Figure, name: str, folder: Path) -> dict[str, Any]:
    for kind in KINDS:
        (folder / f"figures/{name}.{kind}").write_bytes(figure.file(kind))
    files = [f"figures/{name}.{kind}" for kind in KINDS]
    return {"title": figure.title, "alt": figure.alt, "caption": figure.caption or None, "files": files}


def _table(table: Table, name: str, folder: Path) -> dict[str, Any]:
    text = io.StringIO()
    rows = list(_rows(table))
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A byte order mark. Without it, spreadsheets do not take the file for UTF-8.
    (folder / f"tables/{name}.csv").write_text(text.getvalue(), encoding="utf-8-sig")
    entry = {"caption": table.caption, "file": f"tables/{name}.csv", "note": table.note or None}
    return {**entry, "stamp": table.stamp or None, "columns": rows[0], "rows": rows[1:]}


def _rows(table: Table) -> Iterator[list[str | float | None]]:
    """Head and rows. Numbers are in the units of the head, a dash becomes None, and groups get a first column."""
    lines = [row for row in table.rows if not isinstance(row, Group)]
    grouped, group = len(lines) < len(table.rows), ""
    units = [_units(cells) for cells in zip(*lines, strict=True)] or [[] for _ in table.columns]
    heads: list[str] = ["group"] if grouped else []
    for column, found in zip(table.columns, units, strict=True):
        heads += [
            f"{column.header} ({found[0]})" if found[0:] and found[0] and len(found) == 1 else column.header
        ]
        heads += [f"{column.header}, unit"] if len(found) > 1 else []
    yield heads
    for row in table.rows:
        if isinstance(row, Group):
            group = row.text
            continue
        line: list[str | float | None] = [group] if grouped else []
        for cell, found in zip(row, units, strict=True):
            line += [_bare(cell)] + ([getattr(cell.text, "unit", None)] if len(found) > 1 else [])
        yield line


def _units(cells: Sequence[Cell]) -> list[str]:
    """The units of a column's numbers. A fraction has the unit "1"."""
    found = dict.fromkeys(cell.text.unit for cell in cells if isinstance(cell.text, Shown))
    return [{"1": "fraction"}.get(unit, unit) for unit in found]


def _bare(cell: Cell) -> str | float | None:
    if isinstance(cell.text, Shown):
        return cell.text.value
    return None if cell.text == DASH else cell.text.replace("\u202f", " ")
