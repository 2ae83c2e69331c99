"""The command `jouleline import`."""

import argparse

from jouleline.files import read_json


def main(argv: list[str]) -> int:
    """Turn a foreign table into a runs table by a mapping of its columns, and check every value.

    The power that it prints tells units that are wrong, yet not so wrong that they are refused.
    """
    from jouleline.model.mappings import BUILT_IN

    parser = argparse.ArgumentParser(prog="jouleline import", description=__doc__)
    parser.add_argument("table", help="foreign table, .csv or .parquet")
    parser.add_argument(
        "--mapping", required=True, help=f"JSON file, or one of {', '.join(BUILT_IN)}; see docs/model.md"
    )
    parser.add_argument("--out", required=True, help="runs table to write, .parquet or .csv")
    args = parser.parse_args(argv)
    import numpy as np

    from jouleline.model.mappings import convert
    from jouleline.model.table import complete, read_columns, take, usable, write_runs

    mapping = BUILT_IN.get(args.mapping) or read_json(args.mapping)
    columns = complete(convert(read_columns(args.table), mapping, args.table), args.table)
    write_runs(columns, args.out)
    fit = take(columns, usable(columns))
    power = np.median(fit["energy_j"] / fit["time_s"] / fit["device_count"]) if len(fit["run_id"]) else np.nan
    print(
        f"{len(columns['run_id'])} runs of {len(set(columns['family']))} families, "
        f"{power:.3g} W per device in the median; {args.out}"
    )
    return 0
