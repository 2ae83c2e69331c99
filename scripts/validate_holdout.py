"""Judge every model on every split against the measurements, and against the campaign's gates."""

import argparse
import json
import sys

from jouleline.files import read_json, run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the validation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, help="runs table, .parquet or .csv")
    parser.add_argument("--predictions", nargs="+", required=True, help="files of predict_holdout")
    parser.add_argument("--fits", nargs="*", default=[], help="files of fit_model")
    parser.add_argument(
        "--gates", default="{}", help="JSON: {enabled: [names] or all, limits: {name: x}, model: name}"
    )
    parser.add_argument(
        "--enforce", action="store_true", help="exit with 1 when an enabled gate fails, after writing"
    )
    parser.add_argument("--out", required=True, help="validation.json to write")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    from jouleline.model.judge.gates import outcome
    from jouleline.model.judge.validate import read_predictions, validate
    from jouleline.model.table.runs import read_runs

    tables = [read_predictions(path) for path in args.predictions]
    predicted = {run_id for table in tables for run_id in table["run_id"].tolist()}
    runs = read_runs(args.runs, only=predicted) if predicted else {}
    document = validate(runs, tables, [read_json(path) for path in args.fits], json.loads(args.gates))
    write_json(args.out, document)
    failed = [gate for gate in document["gates"] if gate["enabled"] and gate["passed"] is not True]
    for gate in failed:
        print(f"gate {gate['name']} failed: {outcome(gate)}", file=sys.stderr)
    return 1 if args.enforce and failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
