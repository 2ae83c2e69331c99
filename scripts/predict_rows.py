"""Predict time, energy, cost and CO2 of configurations with a campaign's fitted model."""

import argparse

from jouleline.commands.options import json_object
from jouleline.files import read_json, run_script


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the predictions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="fit of the split `all`")
    parser.add_argument(
        "--rows", required=True, help="configurations, .csv or .parquet, with the columns of a row"
    )
    parser.add_argument("--plan", default="{}", help="JSON: price_per_kwh, currency, grid_gco2_per_kwh, pue")
    parser.add_argument("--out", required=True, help="predictions to write, .csv or .parquet")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.model.fit.configurations import predict_file

    plan = json_object(args.plan, "--plan")
    predict_file(read_json(args.model), args.rows, args.out, plan)


if __name__ == "__main__":
    raise SystemExit(main())
