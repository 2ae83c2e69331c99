"""Predict the held-out runs of every fold of one split with one fitted model."""

import argparse

from jouleline.files import atomic_path, read_json, run_script


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the predictions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, help="runs table, .parquet or .csv")
    parser.add_argument("--split", required=True, help="split.json of split_runs")
    parser.add_argument("--fit", required=True, help="fit.json of fit_model")
    parser.add_argument("--calibration", help="calibration.json; default: the one of the fit")
    parser.add_argument("--out", required=True, help="predictions .parquet to write")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.model.fit.fitting import named_runs
    from jouleline.model.fit.predict import predict_split, to_arrow
    from jouleline.model.table.runs import read_runs
    from pyarrow import parquet

    calibration = read_json(args.calibration) if args.calibration else None
    split = read_json(args.split)
    runs = read_runs(args.runs, only=named_runs(split)) if split["folds"] else {}
    table = predict_split(runs, split, read_json(args.fit), calibration)
    with atomic_path(args.out) as temporary:
        parquet.write_table(to_arrow(table), temporary, compression="zstd")


if __name__ == "__main__":
    raise SystemExit(main())
