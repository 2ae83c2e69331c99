"""Divide a campaign's runs into the folds of one split."""

import argparse

from jouleline.commands.options import json_object
from jouleline.files import read_json, run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, help="runs table, .parquet or .csv")
    parser.add_argument("--checks", help="checks table: runs with a failed error are kept out")
    parser.add_argument("--labels", help="labels.json of the campaign, for the split holdout; may be empty")
    parser.add_argument("--split", required=True, help="H0 ... H8, holdout or all")
    parser.add_argument("--options", default="{}", help="JSON: options of the split")
    parser.add_argument("--out", required=True, help="split.json to write")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.model.judge.splits import split_runs
    from jouleline.model.table.runs import read_runs
    from jouleline.reduce.checks import excluded
    from jouleline.schemas import read_table
    from jouleline.schemas.checks import CHECKS

    options = json_object(args.options, "--options")
    failed = excluded(read_table(CHECKS, args.checks)) if args.checks else {}
    labels = read_json(args.labels) if args.labels else {}
    runs = read_runs(args.runs, excluded=failed)
    write_json(args.out, split_runs(runs, args.split, options, labels))


if __name__ == "__main__":
    raise SystemExit(main())
