"""The blocks of a section. Sections fill them, and one template prints them.

So every table has a caption and a header, every figure has a description, and all text on the page is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jouleline.report.canvas import Figure
from jouleline.report.labels import LegendEntry


@dataclass(frozen=True)
class Cell:
    """A table cell: text, a tone (good, bad, warn, quiet or ""), and an optional longer text on hover."""

    text: str
    tone: str = ""
    hover: str = ""

    @property
    def key(self) -> str:
        """The value to sort by, where the text alone would sort wrongly."""
        return getattr(self.text, "key", "")


@dataclass(frozen=True)
class Group:
    """A row that is the heading of the rows below it."""

    text: str


@dataclass(frozen=True)
class Column:
    """A table column: header, and whether it has numbers (aligned right, figures of equal width)."""

    header: str
    numeric: bool = False
    hover: str = ""


@dataclass(frozen=True)
class Table:
    """A table: rows of cells or plain texts, and `Group` rows as headings.

    `folded` hides it behind its caption until it is opened. `dense` is for many columns. `stamp` is printed beside the
    caption: the notice that must accompany these energies.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | str] | Group]
    folded: bool = False
    dense: bool = False
    note: str = ""
    stamp: str = ""
    kind: str = field(default="table", init=False)

    def __post_init__(self):
        cells = [row if isinstance(row, Group) else [_cell(item) for item in row] for row in self.rows]
        object.__setattr__(self, "rows", cells)


@dataclass(frozen=True)
class Panels:
    """Figures side by side, as many in a row as fit, under one heading and legend. `folded` hides them behind it."""

    title: str
    figures: Sequence[Figure]
    legend: Sequence[LegendEntry] = ()
    note: str = ""
    wide: bool = False
    folded: bool = False
    kind: str = field(default="panels", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph. Tone "lead" is for a finding, "note" for how to read, "warn" for what is missing."""

    text: str
    tone: str = ""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Tile:
    """One number of the headline: its name, the number, its interval, and what to compare it with."""

    label: str
    value: str
    detail: str = ""
    context: str = ""


@dataclass(frozen=True)
class Tiles:
    """Headline numbers in a row."""

    tiles: Sequence[Tile]
    kind: str = field(default="tiles", init=False)


@dataclass(frozen=True)
class Section:
    """A part of the report: anchor, heading, blocks."""

    anchor: str
    title: str
    blocks: Sequence[object]


def _cell(item: Cell | str) -> Cell:
    return item if isinstance(item, Cell) else Cell(item)


def columns(*names: str) -> list[Column]:
    """Columns from names; a name that starts with "#" is numeric."""
    return [Column(name.removeprefix("#"), numeric=name.startswith("#")) for name in names]
