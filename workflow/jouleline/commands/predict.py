"""The command `jouleline predict`."""

import argparse

from jouleline.commands.options import add_prices
from jouleline.files import read_json


def main(argv: list[str]) -> int:
    """Predict a table of configurations with a fitted model and print their time, energy and cost."""
    parser = argparse.ArgumentParser(prog="jouleline predict", description=__doc__)
    parser.add_argument(
        "rows", help="configurations, .csv or .parquet: columns of the runs table without the measurements"
    )
    parser.add_argument(
        "--model", required=True, help="model.json of `jouleline fit`, or a campaign's fit/NAME/all.json"
    )
    parser.add_argument("--out", required=True, help="predictions to write, .csv or .parquet")
    add_prices(parser)
    args = parser.parse_args(argv)
    from jouleline.model.fit.configurations import J_PER_KWH, predict_table
    from jouleline.model.table.files import note_unknown, read_columns, require_apart, write_columns

    require_apart(args.out, args.rows, args.model)
    plan = {name: getattr(args, name) for name in ("price_per_kwh", "currency", "grid_gco2_per_kwh", "pue")}
    raw = read_columns(args.rows)
    table = predict_table(read_json(args.model), raw, args.rows, plan)
    write_columns(table, args.out)
    note_unknown(raw, args.rows, "copied and not read")
    known = table["identified"].astype(bool)
    energy = table["predicted_energy_j"][known].sum() / J_PER_KWH
    print(f"{len(known)} rows, {int((~known).sum())} not identified, {energy:.6g} kWh in all; {args.out}")
    outside = int(table["extrapolates"].sum())
    if outside:
        print(f"{outside} rows lie outside the range the model was fitted on: see extrapolation_axes")
    return 0
