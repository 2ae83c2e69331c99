"""Draw the pictures of the README from the demo campaign: a report, `jouleline status`, `jouleline choose`.

Terminal output becomes SVG. Chromium takes a picture of the report. `--status` while the demo runs shows running rows.
"""

import argparse
import contextlib
import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from jouleline.campaign import config
from jouleline.errors import UserError
from jouleline.files import read_json, run_script, write_json, write_text

MOST_BYTES = 300_000
"""All pictures together."""
COLUMNS, CHARACTER, LINE, MARGIN = 118, 7.3, 18, 16
WIDTH, HEIGHT = 1280, 1180


def main(argv: list[str] | None = None) -> int:
    """Draw the requested pictures, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--campaign", default="demo", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures: docs/pictures")
    for part in ("status", "choose", "report"):
        parser.add_argument(f"--{part}", action="store_true", help=f"draw {part}")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    every = not (args.status or args.choose or args.report)
    folder = args.results / args.campaign
    if args.status or every:
        _terminal(["status", args.campaign, "--results", str(args.results)], args.out / "status.svg")
    if args.choose or every:
        _choice(folder, args.campaign, args.out / "choose.svg")
    if args.report or every:
        _page(folder / "report.html", args.out / "report.png")
    size = sum(path.stat().st_size for path in args.out.iterdir())
    if size > MOST_BYTES:
        raise UserError(f"the pictures in {args.out} take {size} bytes; {MOST_BYTES} are the most: draw less")
    print(f"{args.out}: {size} bytes")


def _choice(folder: Path, campaign: str, path: Path) -> None:
    """The answer to the first ask of the campaign."""
    ask = config.load({"campaign": campaign}, Path()).settings["choose"][0]
    headline = read_json(folder / "validation.json")["headline"]
    there = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        write_json("ask.yaml", ask)  # JSON is YAML
        shutil.copy(there / folder / f"fit/{headline}/all.json", "model.json")
        _terminal(["choose", "--model", "model.json", "--ask", "ask.yaml"], there / path)


def _terminal(command: list[str], path: Path) -> None:
    """The output of a jouleline command, as a picture of a terminal."""
    from jouleline.commands.main import main as jouleline

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if jouleline(command):
            raise UserError(f"jouleline {command[0]} failed; run the demonstration first: make run")
    lines = [f"$ jouleline {' '.join(command)}", *said.getvalue().rstrip().split("\n")]
    write_text(path, _svg([part for line in lines for part in _wrapped(line)]))


def _wrapped(line: str) -> list[str]:
    """A line, broken as in a terminal of COLUMNS columns."""
    return [line[k : k + COLUMNS] for k in range(0, len(line), COLUMNS)] or [""]


def _svg(lines: list[str]) -> str:
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    style = "font: 12px ui-monospace, 'DejaVu Sans Mono', monospace; fill: #e7ecf1; white-space: pre"
    texts = [
        f'<text x="{MARGIN}" y="{MARGIN + 13 + LINE * n}" xml:space="preserve">{escape(line)}</text>'
        for n, line in enumerate(lines)
    ]
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{style}">'
    return "\n".join([head, '<rect width="100%" height="100%" rx="8" fill="#171e26"/>', *texts, "</svg>", ""])


def _page(page: Path, path: Path) -> None:
    """The top of a report, drawn by Chromium, in few colours."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or not page.exists():
        raise UserError(f"it takes {page} and chromium: make run, and apt-get install chromium")
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        options += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
        subprocess.run([chromium, *options, page.resolve().as_uri()], check=True, capture_output=True)
        with Image.open(shot) as picture:
            picture.convert("RGB").quantize(200, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main())
