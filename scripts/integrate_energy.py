"""Integrate the energy of every region of finished runs: from raw samples and markers to the regions table."""

import argparse
from pathlib import Path

from jouleline.energy.integrate import runs_regions
from jouleline.errors import UserError
from jouleline.files import run_script
from jouleline.schemas import write_table
from jouleline.schemas.energy import REGIONS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", nargs="+", type=Path, required=True, help="run.json of each run, in one folder"
    )
    parser.add_argument("--out", required=True, help="Parquet file to write")
    options = parser.parse_args(argv)

    def body() -> None:
        folders = {path.parent.parent for path in options.runs}
        if len(folders) > 1:
            raise UserError(f"--runs are in {len(folders)} folders; give the runs of one campaign at a time")
        rows = runs_regions(folders.pop(), [path.parent.name for path in options.runs])
        write_table(REGIONS, rows, options.out)
        print(f"{len(rows)} regions of {len(options.runs)} runs")

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
