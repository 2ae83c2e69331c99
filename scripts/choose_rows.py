"""Choose the runs of a campaign's next round from what the earlier rounds have taught, or end the choice."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jouleline.commands.options import json_object
from jouleline.files import read_json, run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True, help="grid.json, in the campaign's folder")
    parser.add_argument("--earlier", type=Path, nargs="*", default=[], help="rows.json of the rounds before")
    parser.add_argument("--energy", type=Path, nargs="*", default=[], help="integrated regions of their runs")
    parser.add_argument("--calibration", type=Path, nargs="?", help="calibration.json")
    parser.add_argument("--settings", required=True, help="JSON: {frugal, plan, protocol}")
    parser.add_argument("--out", type=Path, required=True, help="rows.json to write; what it has stands")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline import rounds
    from jouleline.schemas import read_table
    from jouleline.schemas.energy import REGIONS

    settings = json_object(args.settings, "--settings")
    campaign = rounds.Campaign(
        read_json(args.grid),
        args.grid.parent,
        [read_json(path) for path in args.earlier],
        [row for path in args.energy for row in read_table(REGIONS, path)],
        settings,
        read_json(args.calibration) if args.calibration else None,
    )
    document = rounds.next_round(campaign, read_json(args.out) if args.out.exists() else None)
    write_json(args.out, document)
    print("\n".join(rounds.lines(document)))


if __name__ == "__main__":
    raise SystemExit(main())
