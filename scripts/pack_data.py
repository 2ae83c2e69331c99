"""Keep a finished campaign as data: its tables, calibration, a few raw runs, and how it was measured."""

import argparse
from pathlib import Path

from jouleline.files import run_script


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, pack, check the size. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--results", type=Path, required=True, help="folder of the campaign, such as results/h200"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data, such as data/h200")
    parser.add_argument("--raw-runs", type=int, default=8, help="runs whose raw samples are kept (default 8)")
    parser.add_argument("--limit-mb", type=float, default=20, help="most the data may weigh (default 20)")
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.reference.data import pack

        size_mb = pack(arguments.results, arguments.out, arguments.raw_runs, arguments.limit_mb)
        print(f"{arguments.out}: {size_mb:.1f} MB")

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
