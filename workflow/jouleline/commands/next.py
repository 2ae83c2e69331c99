"""The command `jouleline next`."""

import argparse
import os

from jouleline.errors import UserError
from jouleline.files import read_json


def main(argv: list[str]) -> int:
    """Say which runs to measure next: those that lower the expected error over all candidates most per joule."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(prog="jouleline next", description=main.__doc__)
    parser.add_argument(
        "runs", help="runs measured so far, .parquet or .csv; eight or more of them make a fit"
    )
    parser.add_argument(
        "--candidates",
        required=True,
        help="configurations that may be measured, .csv or .parquet; see predict",
    )
    parser.add_argument("-n", "--count", type=int, default=5, help="how many to suggest; default: 5")
    parser.add_argument("--calibration", help="calibration.json of the device")
    parser.add_argument("--memory-gib", type=float, help="memory of a device; default: its data sheet's")
    parser.add_argument("--out", help="suggested rows to write, .csv or .parquet")
    args = parser.parse_args(argv)
    from jouleline.model.frugal.table import suggest
    from jouleline.model.table.files import note_unknown, read_columns, require_apart, write_columns
    from jouleline.model.table.runs import read_runs

    if args.memory_gib is not None and not args.memory_gib > 0:
        raise UserError(f"--memory-gib is {args.memory_gib:g}; give what a device has, more than 0")
    if args.out:
        require_apart(args.out, args.runs, args.candidates)
    raw = read_columns(args.candidates)
    calibration = read_json(args.calibration) if args.calibration else None
    chosen, too_large = suggest(
        read_runs(args.runs), raw, args.candidates, args.count, calibration, args.memory_gib
    )
    if args.out:
        write_columns(chosen, args.out)
    note_unknown(raw, args.candidates, "copied and not read")
    for line in _lines(chosen, list(raw)):
        print(line)
    if too_large.any():
        lines = ", ".join(str(row + 2) for row in too_large.nonzero()[0][:20])
        print(f"{int(too_large.sum())} candidates cannot fit in memory and are left out: lines {lines}")
    return 0


def _lines(chosen, names: list[str]) -> list[str]:
    """Each suggestion, by the columns in which the suggested rows differ, and its reason."""
    count = len(chosen["order"])
    differ = [name for name in names if len(set(chosen[name].tolist())) > 1] or names[:4]
    lines = []
    for row in range(count):
        shape = " ".join(f"{name}={chosen[name][row]}" for name in differ)
        energy = chosen["expected_energy_j"][row]
        cost = f"{energy:.3g} J" if energy == energy else "joules not known"
        lines.append(f"{row + 1}. {shape}: {cost}; {chosen['reason'][row]}")
    return lines
