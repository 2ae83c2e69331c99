"""Judge every model on every split against the measurements, and against the campaign's gates."""

import argparse

from jouleline.commands.options import json_object
from jouleline.files import read_json, run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the validation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, help="runs table, .parquet or .csv")
    parser.add_argument("--checks", help="checks table: runs with a failed error are kept out")
    parser.add_argument("--predictions", nargs="+", required=True, help="files of predict_holdout")
    parser.add_argument("--fits", nargs="*", default=[], help="files of fit_model")
    parser.add_argument(
        "--gates",
        default="{}",
        help="JSON: {enabled: [names] or all, limits: {name: x}, model: name}",
    )
    parser.add_argument("--headline", help="the campaign's headline model, which the gates judge")
    parser.add_argument("--out", required=True, help="validation.json to write")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.model.judge.validate import read_predictions, validate
    from jouleline.model.table.runs import read_runs, usable
    from jouleline.reduce.checks import excluded
    from jouleline.schemas import read_table
    from jouleline.schemas.checks import CHECKS

    gates = json_object(args.gates, "--gates")
    tables = [read_predictions(path) for path in args.predictions]
    # Of all runs that can be used: what noise there is shows in replicates that no model was fit for, too.
    failed = excluded(read_table(CHECKS, args.checks)) if args.checks else {}
    runs = read_runs(args.runs, excluded=failed)
    runs = runs if usable(runs).any() else {}
    fits = [read_json(path) for path in args.fits]
    write_json(args.out, validate(runs, tables, fits, gates, args.headline))


if __name__ == "__main__":
    raise SystemExit(main())
