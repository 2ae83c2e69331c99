"""Draw docs/rooms.svg from the imports in the code: the rooms of the library, and which room imports which."""

import argparse
import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from jouleline.files import run_script, write_text

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "workflow" / "jouleline"
# Large rooms: the rooms inside them are drawn one by one.
HALLS = ("measure", "model")
COLUMNS = 5
BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 124, 30, 16, 34, 16
STYLE = (
    "text{font:13px sans-serif;fill:#1a1a1a}"
    "rect{fill:#eef3f8;stroke:#4a6785}.measure rect{fill:#fdf1e3;stroke:#b5792c}"
    ".model rect{fill:#eaf5ea;stroke:#4c8a4c}"
    "path{fill:none;stroke:#8a99a8;stroke-width:1}svg{background:#fff}"
)


def room_of(module: str) -> str:
    """The room of a module's dotted name without the package: its folder; in a hall with the folder below it."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] in HALLS and len(parts) > 1 else 1])


def read(library: Path = LIBRARY) -> tuple[dict[str, str], dict[str, set[str]]]:
    """({room: its first sentence}, {room: rooms that it imports}) of a library."""
    says: dict[str, str] = {}
    arrows: dict[str, set[str]] = {}
    for path in sorted(library.rglob("*.py")):
        module = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix("__init__").strip(".")
        if not module or module in HALLS:
            continue
        room, tree = room_of(module), ast.parse(path.read_text(encoding="utf-8"))
        # A folder's __init__ is read first, and its sentence describes the folder.
        says.setdefault(room, (ast.get_docstring(tree) or "").split("\n")[0])
        arrows.setdefault(room, set()).update(map(room_of, _imports(tree)))
    return says, {
        room: {one for one in rooms if one in says and one != room} for room, rooms in arrows.items()
    }


def _imports(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jouleline"):
            for alias in node.names:
                yield f"{node.module}.{alias.name}".removeprefix("jouleline.")


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest that it imports.

    Raises RecursionError where imports are circular.
    """
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((floor(below) for below in arrows[room]), default=-1)
        return found[room]

    for room in arrows:
        floor(room)
    return found


def reduced(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows, without those that follow from longer ways."""

    def below(room: str) -> set[str]:
        return set().union(*({one} | below(one) for one in arrows[room]))

    return {
        room: {one for one in rooms if not any(one in below(other) for other in rooms - {one})}
        for room, rooms in arrows.items()
    }


def svg(says: Mapping[str, str], arrows: Mapping[str, set[str]]) -> str:
    """The picture: a room stands above the rooms that it imports."""
    floor = floors(arrows)
    rows = [
        sorted(room for room in floor if floor[room] == number) for number in range(max(floor.values()) + 1)
    ]
    width = COLUMNS * (BOX_W + GAP_X) - GAP_X + 2 * MARGIN
    height = len(rows) * (BOX_H + GAP_Y) - GAP_Y + 2 * MARGIN
    place = {}
    for number, row in enumerate(rows):
        for room, column in _columns(row).items():
            left = MARGIN + column * (BOX_W + GAP_X)
            place[room] = left, height - MARGIN - BOX_H - number * (BOX_H + GAP_Y)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="Rooms of the library; each imports only rooms below it">',
        f"<style>{STYLE}</style>",
    ]
    for room, rooms in sorted(reduced(arrows).items()):
        lines += [_arrow(place[room], place[below]) for below in sorted(rooms)]
    for room, (x, y) in sorted(place.items()):
        lines.append(_box(room, x, y, says[room]))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _columns(row: list[str]) -> dict[str, float]:
    """Column of each room of a floor: measuring at the left, the model at the right, the rest between them."""
    left = [room for room in row if room.startswith("measure.")]
    right = [room for room in row if room.startswith("model.")]
    between = [room for room in row if room not in left + right]
    first = (COLUMNS - len(between)) / 2
    first = max(first, len(left))
    return (
        {room: float(index) for index, room in enumerate(left)}
        | {room: first + index for index, room in enumerate(between)}
        | {room: float(COLUMNS - 1 - index) for index, room in enumerate(right)}
    )


def _arrow(above: tuple[float, float], below: tuple[float, float]) -> str:
    x1, y1, x2, y2 = above[0] + BOX_W / 2, above[1] + BOX_H, below[0] + BOX_W / 2, below[1]
    bend = (y2 - y1) / 2
    return f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"/>'


def _box(room: str, x: float, y: float, says: str) -> str:
    name = room.replace(".", "/")
    return (
        f'<g class="{escape(room.split(".")[0])}"><title>{escape(says)}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_W}" height="{BOX_H}" rx="6"/>'
        f'<text x="{x + BOX_W / 2:g}" y="{y + BOX_H / 2 + 4:g}" text-anchor="middle">{escape(name)}</text></g>'
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="SVG file to write, docs/rooms.svg say")
    arguments = parser.parse_args(argv)
    return run_script(lambda: write_text(arguments.out, svg(*read())))


if __name__ == "__main__":
    raise SystemExit(main())
