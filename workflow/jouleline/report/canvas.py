"""Drawings by matplotlib, in the colours of the light page.

On the page each colour becomes its CSS variable, so one figure serves light and dark. A figure that is a file of its
own (SVG, PDF, PNG) keeps its colours. A panel is small and has a fixed size in CSS pixels. Pages place panels in a
grid, so text keeps its size on a narrow screen. In one wide drawing it would shrink.
"""

import hashlib
import html
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

WIDTH, HEIGHT = 380, 300
FONT_SIZE = 11
KINDS = ("svg", "pdf", "png")
"""Files that a figure can be had as."""

TEMPLATES = Path(__file__).parent / "templates"
_LIGHT = (TEMPLATES / "style.css").read_text(encoding="utf-8").split("@media")[0]
# CSS variable -> colour of the light page. Only the style defines them. No two drawn colours may be equal.
_COLOURS = dict(re.findall(r"--([\w-]+): (#\w{6});", _LIGHT))
INK, MUTED, GRID, SURFACE, ACCENT, WARN = (
    _COLOURS[name] for name in ("ink", "muted", "grid", "surface", "accent", "warn")
)
# The colours differ in lightness too, and each series has its own marker.
SERIES = tuple(_COLOURS[f"series-{number}"] for number in range(1, 8))
_VARIABLES = {
    colour: name
    for name, colour in _COLOURS.items()
    if colour in {INK, MUTED, GRID, SURFACE, ACCENT, WARN, *SERIES}
}

_STYLE = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "svg.hashsalt": "jouleline",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 1,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE - 0.5,
    "ytick.labelsize": FONT_SIZE - 0.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.dpi": 72,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Figure:
    """A finished panel: trusted SVG markup, the text that describes it (`alt`, goes to aria-label), and its title."""

    svg: Markup
    alt: str
    caption: str = ""
    title: str = ""
    drawn: object = field(default=None, repr=False, compare=False)

    def file(self, kind: str) -> bytes:
        """The figure as a file of one of KINDS, on white. A PNG has two pixels per CSS pixel. Equal figures give equal
        bytes."""
        buffer = io.BytesIO()
        with _own_style():
            self.drawn.savefig(
                buffer,
                format=kind,
                dpi=144 if kind == "png" else 72,
                facecolor=SURFACE,
                metadata=_TIMELESS[kind],
            )
        return buffer.getvalue()


@contextmanager
def _own_style() -> Iterator[None]:
    """The report's style and nothing of the user's: a matplotlibrc may ask for LaTeX, a backend may be a notebook's."""
    users = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        import matplotlib
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update({name: value for name, value in users.items() if value is not None})
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


# Metadata that would make two files of one figure differ.
_TIMELESS = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@dataclass
class Panel:
    """A panel that is being drawn: matplotlib's figure and axes, and the hover text of its point collections."""

    figure: object
    axes: object
    titles: dict[str, list[str]]

    def label_points(self, artist, titles: Sequence[str]) -> None:
        """Give each point of a scatter `artist` a hover text (one per point, in the order of its data)."""
        gid = f"points-{len(self.titles)}"
        artist.set_gid(gid)
        self.titles[gid] = list(titles)


@contextmanager
def panel(width: int = WIDTH, height: int = HEIGHT) -> Iterator[Panel]:
    """A new panel of `width` x `height` CSS pixels in the report's style. The style ends with the block."""
    with _own_style():
        from matplotlib.figure import Figure as MatplotlibFigure

        figure = MatplotlibFigure(figsize=(width / 72, height / 72), layout="constrained")
        figure.get_layout_engine().set(w_pad=4 / 72, h_pad=4 / 72)
        yield Panel(figure, figure.add_subplot(), {})


def finish(drawn: Panel, alt: str, caption: str = "", stamp: str = "") -> Figure:
    """Turn a panel into markup. Call this inside its `panel` block.

    `stamp` is printed inside the drawing (that the energy is estimated, say), so a copied figure still says it. Equal
    panels give equal markup: nothing in it depends on the time, the process or the machine.
    """
    if stamp:
        drawn.figure.supxlabel(
            stamp, color=WARN, fontsize=FONT_SIZE - 1, fontweight="bold", x=0.99, ha="right"
        )
    buffer = io.BytesIO()
    drawn.figure.savefig(buffer, format="svg", metadata=_TIMELESS["svg"])
    drawn.figure.set_layout_engine("none")  # fixes the layout, for the files too
    svg = buffer.getvalue().decode("utf-8")
    title = drawn.figure.get_suptitle() or drawn.axes.get_title(loc="left")
    return Figure(Markup(_inline(svg, drawn.titles, alt)), alt, caption, title, drawn.figure)


def _inline(svg: str, titles: dict[str, list[str]], alt: str) -> str:
    """Reduce a stand-alone SVG file to an element for an HTML page: no prologue, own ids, CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = svg.replace("xlink:href", "href")
    # matplotlib names a font that the reader may lack. Only size and weight are set here; the page sets the family.
    svg = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]*", _font, svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    # A page has tens of thousands of marks. So places have two decimals of a pixel, and each style is written once.
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group(0)), svg)
    svg = re.sub(r"<g( clip-path=\"[^\"]*\")?>\s*((?:<use [^>]*/>\s*)+)</g>", _style_once, svg)
    for gid, labels in titles.items():
        svg = _add_titles(svg, gid, labels)
    prefix = "f" + hashlib.sha256((alt + svg).encode()).hexdigest()[:8] + "-"
    svg = re.sub(r'(\sid="|href="#|url\(#)', lambda match: match.group(1) + prefix, svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    body = svg[svg.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]*)"', svg).group(1)
    label = html.escape(alt, quote=True)
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">' + re.sub(r"\n\s*", "\n", body)


def _style_once(group: re.Match) -> str:
    """A group of marks with the same style. The group has the style."""
    styles = set(re.findall(r' style="([^"]*)"', group.group(2)))
    if len(styles) != 1:
        return group.group(0)
    (style,) = styles
    marks = group.group(2).replace(f' style="{style}"', "")
    return f'<g{group.group(1) or ""} style="{style}">\n{marks}</g>'


def _font(match: re.Match) -> str:
    weight = f"; font-weight: {match.group(1)}" if match.group(1) else ""
    return f"font-size: {match.group(2)}px{weight}"


def _add_titles(svg: str, gid: str, labels: list[str]) -> str:
    start = svg.find(f'id="{gid}"')
    if start < 0:
        return svg
    remaining = iter(labels)
    head, tail = svg[:start], svg[start:]

    def title(match: re.Match) -> str:
        label = next(remaining, None)
        return (
            match.group(0) if label is None else f"{match.group(1)}><title>{html.escape(label)}</title></use>"
        )

    return head + re.sub(r"(<use [^>]*?)/>", title, tail, count=len(labels))
