"""Check every run: compare what was found with what was expected."""

import argparse
from pathlib import Path

from jouleline.campaign.protocol import complete_protocol
from jouleline.commands.options import json_object
from jouleline.files import run_script
from jouleline.reduce import checks
from jouleline.schemas import read_table, write_table
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.energy import REGIONS
from jouleline.schemas.runs import RUNS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="runs table")
    parser.add_argument("--regions", type=Path, required=True, help="regions table")
    parser.add_argument("--protocol", required=True, help="protocol as JSON")
    parser.add_argument("--out", type=Path, required=True, help="checks table to write")
    args = parser.parse_args(argv)

    def check() -> None:
        protocol = complete_protocol(json_object(args.protocol, "--protocol"))
        runs, regions = read_table(RUNS, args.runs), read_table(REGIONS, args.regions)
        found = checks.check_runs(runs, regions, protocol)
        write_table(CHECKS, found, args.out)
        for run_id, reason in checks.excluded(found).items():
            print(f"kept out of the fits: {run_id}: {reason}")
        failed = sum(check["passed"] is False for check in found)
        print(f"{len(found)} checks of {len(runs)} runs, {failed} failed")

    return run_script(check)


if __name__ == "__main__":
    raise SystemExit(main())
