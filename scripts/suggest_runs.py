"""Say which runs would teach most about the asks of a campaign, or about the unmeasured rows of its grid."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jouleline.commands.options import json_object
from jouleline.files import read_json, run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the suggestions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="runs.parquet")
    parser.add_argument("--split", type=Path, required=True, help="the split `all`: the runs that are good")
    parser.add_argument("--grid", type=Path, required=True, help="grid.json: the rows that may be measured")
    parser.add_argument("--calibration", type=Path, required=True, help="calibration.json")
    parser.add_argument("--asks", default="{}", help="JSON: {asks: [ask, ...]}, see docs/choose.md")
    parser.add_argument("--memory-gib", type=float, help="memory of a device; default: its data sheet's")
    parser.add_argument("--out", type=Path, required=True, help="suggestions to write, JSON")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.choose import ask
    from jouleline.choose.next_runs import next_runs
    from jouleline.model.fit.fitting import named_runs
    from jouleline.model.table.runs import read_runs

    given = json_object(args.asks, "--asks").get("asks", [])
    measured = read_runs(args.runs, only=named_runs(read_json(args.split)))
    asks = [ask.make(one, f"choose, ask {number}") for number, one in enumerate(given, 1)]
    tried = set(read_runs(args.runs)["run_id"].tolist())
    rows = {run["run_id"]: run["row"] for run in read_json(args.grid)["runs"] if run["run_id"] not in tried}
    found = next_runs(measured, rows, asks, read_json(args.calibration), args.memory_gib)
    write_json(args.out, found)
    print("\n".join(f"{run['name']}: {run['reason']}" for run in found["runs"]) or found["reason"])


if __name__ == "__main__":
    raise SystemExit(main())
