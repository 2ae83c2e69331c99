"""Collect the packages that a machine without a network lacks, as wheels with hashes in one folder."""

import argparse
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import run_script
from jouleline.units import MIB

LOCK = Path("workflow/envs/base.lock")


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, fill the folder. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument(
        "--there", type=Path, required=True, help="packages that are there: `pip list --format=freeze`"
    )
    parser.add_argument("--python", default="3.12", help="Python of that machine (default 3.12), on x86_64")
    parser.add_argument("--limit-mib", type=float, default=64, help="most the bundle may weigh (default 64)")
    parser.add_argument("--lock", type=Path, default=LOCK, help="versions and hashes")
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.reference.bundle import ROOTS, disagreements, missing, read_there, write_bundle

        there = read_there(arguments.there)
        for line in disagreements(missing(ROOTS, there, arguments.python), there, arguments.python):
            print(f"warning: {line}")
        wheels = write_bundle(arguments.out, there, arguments.python, arguments.lock)
        size_mib = sum(wheel.stat().st_size for wheel in wheels) / MIB
        print(
            f"{len(wheels)} wheels, {size_mib:.1f} MiB: install with `make setup-bundle BUNDLE={arguments.out}`"
        )
        if size_mib > arguments.limit_mib:
            raise UserError(f"the bundle is larger than {arguments.limit_mib:g} MiB; raise --limit-mib")

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
