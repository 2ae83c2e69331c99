"""Figures and tables of the report as files: bare numbers, own colours, equal bytes."""

import csv
import json
from types import SimpleNamespace

import pytest
from jouleline.errors import UserError
from jouleline.files import atomic_folder
from jouleline.report import canvas, export
from jouleline.report.blocks import Cell, Group, Panels, Section, Table, Text, columns
from jouleline.report.numbers import count, percent, quantity


def drawn(title: str) -> canvas.Figure:
    with canvas.panel() as panel:
        panel.axes.plot([1, 2], [3, 4], color=canvas.ACCENT)
        panel.axes.set_title(title)
        return canvas.finish(panel, "a line of two points")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rows = [
        [Cell("fast"), quantity(12_300, "J"), percent(0.053), quantity(2e9, "FLOP/s"), count(3)],
        Group("with thought"),
        [Cell("slow"), quantity(None, "J"), percent(0.5), quantity(1.5, "s"), "1 to 2"],
    ]
    table = Table("Runs (2)", columns("Run", "#Energy", "#Error", "#Value", "#N"), rows)
    blocks = [
        Text("said"),
        table,
        Table("Runs (9)", columns("Run"), []),
        Panels("Two", [drawn("A, b"), drawn("A b")]),
    ]
    page = SimpleNamespace(title="t", subtitle="s", stamp="", sections=[Section("runs", "Runs", blocks)])
    found = []
    for name in ("one", "two"):
        found.append(tmp_path_factory.mktemp("parts") / name)
        with atomic_folder(found[-1]) as temporary:
            export.write(page, temporary)
    return found


def test_tables_are_bare_numbers_with_units_in_the_head(folder):
    with open(folder[0] / "tables/runs-runs.csv", encoding="utf-8-sig") as text:
        head, first, second = csv.reader(text)
    assert head == ["group", "Run", "Energy (J)", "Error (fraction)", "Value", "Value, unit", "N"]
    assert first == ["", "fast", "12300.0", "0.053", "2000000000.0", "FLOP/s", "3"]
    assert second == ["with thought", "slow", "", "0.5", "1.5", "s", "1 to 2"], "unknown is empty, never 0"


def test_the_whole_is_json_that_names_its_files(folder):
    report = json.loads((folder[0] / "report.json").read_text())
    text, table, again, panels = report["sections"][0]["blocks"]
    assert text["text"] == "said" and table["rows"][1][2] is None
    assert (table["file"], again["file"]) == ("tables/runs-runs.csv", "tables/runs-runs-2.csv")
    named = {file for figure in panels["figures"] for file in figure["files"]} | {
        table["file"],
        again["file"],
    }
    there = {path.relative_to(folder[0]).as_posix() for path in folder[0].rglob("*.*")}
    assert named | {"report.json"} == there and len(named) == 8


def test_figures_are_whole_files_in_colours_of_their_own(folder):
    svg, pdf, png = (folder[0] / f"figures/runs-a-b.{kind}" for kind in canvas.KINDS)
    assert canvas.ACCENT in svg.read_text() and "var(" not in svg.read_text()
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.read_bytes().rstrip().endswith(b"%%EOF")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_equal_pages_give_equal_files(folder):
    for path in folder[0].rglob("*.*"):
        assert path.read_bytes() == (folder[1] / path.relative_to(folder[0])).read_bytes(), path.name


def test_a_folder_is_whole_or_not_there(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/old").write_text("kept")
    with pytest.raises(ValueError), atomic_folder(tmp_path / "parts") as temporary:
        (temporary / "half").write_text("half")
        raise ValueError
    assert [path.name for path in tmp_path.rglob("*")] == ["parts", "old"]
    with pytest.raises(UserError, match="cannot write"), atomic_folder(tmp_path / "parts/old/under"):
        pass
