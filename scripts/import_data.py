"""Copy the files of a campaign that was measured elsewhere to the places of its own measurements."""

import argparse
from pathlib import Path

from jouleline.files import run_script


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, check the files against their digests, copy them. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the data, as pack_data.py left it"
    )
    parser.add_argument("--campaign", required=True, help="name of the campaign that they must be of")
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="files to copy, by folder and name"
    )
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.reference.data import copy

        copy(arguments.data, arguments.campaign, arguments.out)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
