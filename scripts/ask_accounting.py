"""Ask Slurm's accounting for times and energy of finished runs.

Earlier answers are kept, because accounting forgets.
"""

import argparse
from pathlib import Path

from jouleline.files import read_json, run_script
from jouleline.slurm import accounting


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, ask, write the answers. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True, help="the expanded grid, grid.json")
    parser.add_argument("--runs-dir", type=Path, required=True, help="folder that holds one folder per run")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of answers; earlier ones stay")
    args = parser.parse_args(argv)

    def ask() -> None:
        runs = [args.runs_dir / run["run_id"] / "run.json" for run in read_json(args.grid)["runs"]]
        known = accounting.record_all(runs, args.out)
        print(f"Slurm's accounting knows {known} of {len(runs)} runs")

    return run_script(ask)


if __name__ == "__main__":
    raise SystemExit(main())
