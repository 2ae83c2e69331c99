"""Write the report of a campaign: one HTML file that needs no other file, and its figures and tables as files."""

import argparse
from pathlib import Path

from jouleline.commands.options import json_object
from jouleline.files import run_script

_TABLES = ("runs", "regions", "timings", "checks")
_FACTS = ("validation", "calibration", "idle")


def main(argv: list[str] | None = None) -> int:
    """Read the tables, fits and verdicts of a campaign and write its page."""
    arguments = parser().parse_args(argv)
    return run_script(lambda: _render(arguments))


def parser() -> argparse.ArgumentParser:
    """The command line of this rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaign", required=True, help="name of the campaign")
    for name in _TABLES:
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"{name}.parquet")
    for name in _FACTS:
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"{name}.json")
    parser.add_argument(
        "--predictions", type=Path, nargs="*", default=[], help="predictions of each model and split"
    )
    parser.add_argument("--fits", type=Path, nargs="*", default=[], help="fits of each model and split")
    parser.add_argument(
        "--splits", type=Path, nargs="*", default=[], help="splits, for the reasons of what they exclude"
    )
    parser.add_argument(
        "--config", type=Path, help="merged configuration of the campaign (YAML or JSON), to be printed"
    )
    parser.add_argument("--answers", type=Path, nargs="*", default=[], help="answers of choose_configuration")
    parser.add_argument("--rounds", type=Path, nargs="*", default=[], help="rounds of choose_rows")
    parser.add_argument("--suggested", type=Path, nargs="?", help="suggestions of suggest_runs")
    parser.add_argument("--runs-dir", type=Path, required=True, help="folder with one folder per run")
    parser.add_argument("--planned", type=int, help="number of runs that the grid asks for")
    parser.add_argument("--settings", default="{}", help="JSON: title, traces (number of power traces)")
    parser.add_argument("--out", type=Path, required=True, help="report.html")
    parser.add_argument("--parts", type=Path, help="folder for figures, tables and report.json")
    return parser


def _render(arguments: argparse.Namespace) -> int:
    from jouleline.report import inputs, page

    options = vars(arguments).copy()
    out, parts = options.pop("out"), options.pop("parts")
    options["settings"] = json_object(options["settings"], "--settings")
    options["tables"] = {name: options.pop(name) for name in _TABLES}
    options["facts"] = {name: options.pop(name) for name in _FACTS}
    page.write(inputs.load(**options), out, parts)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
