"""Collect the finished runs of a campaign into the runs table and the regions table."""

import argparse
from pathlib import Path

from jouleline.files import read_json, run_script, write_text
from jouleline.reduce import runs as tables
from jouleline.reduce import timings
from jouleline.schemas import data_dictionary, read_table, write_table
from jouleline.schemas.calibration import CALIBRATION
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.energy import MARKERS, REGIONS, SAMPLES
from jouleline.schemas.model import PREDICTIONS
from jouleline.schemas.runs import RUNS
from jouleline.schemas.timings import TIMINGS
from jouleline.slurm import accounting

# All tables of a campaign, for the data dictionary.
TABLES = (RUNS, REGIONS, TIMINGS, CHECKS, PREDICTIONS, CALIBRATION, SAMPLES, MARKERS)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True, help="the expanded grid, grid.json")
    parser.add_argument("--runs-dir", type=Path, required=True, help="folder that holds one folder per run")
    parser.add_argument(
        "--energy", type=Path, nargs="+", required=True, help="integrated regions, one file per shard"
    )
    parser.add_argument("--slurm", type=Path, required=True, help="answers of Slurm's accounting")
    parser.add_argument("--runs", type=Path, required=True, help="runs table to write")
    parser.add_argument("--regions", type=Path, required=True, help="regions table to write")
    parser.add_argument("--timings", type=Path, required=True, help="timings table to write")
    parser.add_argument("--dictionary", type=Path, required=True, help="data dictionary to write")
    args = parser.parse_args(argv)

    def collect() -> None:
        regions = [row for path in args.energy for row in read_table(REGIONS, path)]
        slurm = accounting.read(args.slurm)
        runs, times = tables.collect(read_json(args.grid), regions, args.runs_dir, slurm)
        write_table(REGIONS, regions, args.regions)
        write_table(RUNS, runs, args.runs)
        write_table(TIMINGS, times, args.timings)
        write_text(args.dictionary, data_dictionary(TABLES))
        print(f"{len(runs)} runs, {len(regions)} regions")
        print(timings.as_text(times))

    return run_script(collect)


if __name__ == "__main__":
    raise SystemExit(main())
