"""Fit one model on every fold of one split."""

import argparse

from jouleline.commands.options import json_object
from jouleline.files import read_json, run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, help="runs table, .parquet or .csv")
    parser.add_argument("--split", required=True, help="split.json of split_runs")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--calibration", help="calibration.json of the device")
    parser.add_argument("--options", default="{}", help="JSON: options of the fit")
    parser.add_argument("--out", required=True, help="fit.json to write")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.model.fit.fitting import fit_split, named_runs
    from jouleline.model.table.runs import read_runs

    options = json_object(args.options, "--options")
    calibration = read_json(args.calibration) if args.calibration else None
    split = read_json(args.split)
    runs = read_runs(args.runs, only=named_runs(split)) if split["folds"] else {}
    write_json(args.out, fit_split(runs, split, args.model, calibration, options))


if __name__ == "__main__":
    raise SystemExit(main())
