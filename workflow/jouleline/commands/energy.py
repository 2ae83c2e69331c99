"""`jouleline energy DIR [--json]`: the energy of every region, worked out again from the raw files."""

import argparse
import json
import os
import sys
from pathlib import Path

from jouleline.commands.progress import Progress
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement, load_run
from jouleline.energy.verdict import REASONS
from jouleline.files import run_script

_COLUMNS = (
    ("region", "region", "{}"),
    ("device_uuid", "device", "{}"),
    ("time_s", "time s", "{:.3f}"),
    ("energy_j", "energy J", "{:.2f}"),
    ("energy_edge_u_j", "edge u J", "{:.2f}"),
    ("energy_gap_u_j", "gap u J", "{:.2f}"),
    ("energy_gain_u_j", "gain u J", "{:.2f}"),
    ("idle_energy_j", "idle J", "{:.2f}"),
    ("mean_power_w", "power W", "{:.1f}"),
    ("covered_fraction", "covered", "{:.3f}"),
    ("energy_source", "source", "{}"),
    ("method", "method", "{}"),
    ("verdict", "verdict", "{}"),
    ("reasons", "reasons", "{}"),
)


def load(folder: Path):
    """A finished run (run.json) or a measurement directory. Raises UserError where it is neither."""
    return load_run(folder) if (folder / "run.json").exists() else load_measurement(folder)


def table(rows: list[dict]) -> str:
    """The rows as aligned text. A dash means unknown."""
    lines = [[title for _, title, _ in _COLUMNS]]
    for row in rows:
        cells = {
            name: "-" if row[name] in (None, "") else form.format(row[name]) for name, _, form in _COLUMNS
        }
        cells["region"] += f"#{row['ordinal']}" if row["ordinal"] else ""
        cells["device_uuid"] = row["device_uuid"] or "total"
        lines.append([cells[name] for name, *_ in _COLUMNS])
    widths = [max(len(line[k]) for line in lines) for k in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


def _meanings(rows: list[dict]) -> list[str]:
    """A line for each reason in the table, and one where the energy is not measured."""
    found = {code for row in rows for code in row["reasons"].split(",")}
    lines = [f"{code}: {meaning}" for code, (_, meaning) in REASONS.items() if code in found]
    if any(row["energy_source"] == "estimate" for row in rows):
        lines.append("ESTIMATED: CPU time times declared watts, not a measurement.")
    return lines


def main(argv: list[str]) -> int:
    """Print the regions. Returns 0; 1 when a region is invalid; 2 for bad input."""
    made = argparse.ArgumentParser(
        prog="jouleline energy",
        description="Energy of every region of a measurement, with its uncertainty and verdict. Exit code 1: at "
        "least one region is invalid.",
    )
    made.add_argument(
        "folder", metavar="DIR", type=Path, help="the --out of `jouleline measure`, or a run's folder"
    )
    made.add_argument("--json", action="store_true", help="every column, as JSON")
    options = made.parse_args(argv)
    return run_script(lambda: _show(options))


def _show(options: argparse.Namespace) -> int:
    with Progress(2) as progress:
        progress.next("reading")
        measurement = load(options.folder)
        progress.next("integrating")
        rows = regions(measurement)
    lines = [json.dumps(rows, indent=1)] if options.json else [table(rows), *_meanings(rows)]
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        # The reader has closed the pipe. The rest must not be written again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(any(row["verdict"] == "invalid" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
