"""Integrate the energy of every region of finished runs: raw samples and markers to the regions table."""

import argparse
from pathlib import Path

from jouleline.energy.integrate import runs_regions
from jouleline.files import run_script
from jouleline.schemas import write_table
from jouleline.schemas.energy import REGIONS


def read_ids(given: list[str]) -> list[str]:
    """Run ids from the command line; an argument that is a file gives one id per line."""
    ids = []
    for item in given:
        path = Path(item)
        ids += path.read_text().split() if path.is_file() else [item]
    return ids


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs-dir", required=True, help="folder with one folder per run")
    parser.add_argument("--run-ids", nargs="+", required=True, help="run ids, or files with one id per line")
    parser.add_argument("--out", required=True, help="Parquet file to write")
    options = parser.parse_args(argv)

    def body() -> None:
        rows = runs_regions(options.runs_dir, read_ids(options.run_ids))
        write_table(REGIONS, rows, options.out)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
