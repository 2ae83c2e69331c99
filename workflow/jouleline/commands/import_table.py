"""The command `jouleline import`."""

import argparse

from jouleline.commands.progress import Progress
from jouleline.errors import UserError
from jouleline.files import read_json


def main(argv: list[str]) -> int:
    """Turn a foreign table into a runs table by a mapping of its columns, and check every value."""
    from jouleline.model.table.mappings import BUILT_IN

    parser = argparse.ArgumentParser(prog="jouleline import", description=__doc__)
    parser.add_argument("table", help="foreign table, .csv or .parquet")
    parser.add_argument(
        "--mapping", required=True, help=f"JSON file, or one of {', '.join(BUILT_IN)}; see docs/model.md"
    )
    parser.add_argument(
        "--add", nargs="+", default=[], metavar="NAME=VALUE", help="columns of one value that the table lacks"
    )
    parser.add_argument(
        "--rows", help="table of our columns that says what was run, where a meter's does not"
    )
    parser.add_argument("--out", required=True, help="runs table to write, .parquet or .csv")
    args = parser.parse_args(argv)
    from jouleline.model.table.checks import note_power
    from jouleline.model.table.files import require_apart
    from jouleline.model.table.mappings import convert
    from jouleline.model.table.runs import complete, read_columns, write_runs

    require_apart(args.out, args.table, args.mapping, *([args.rows] if args.rows else []))
    mapping = BUILT_IN.get(args.mapping) or read_json(args.mapping, "correct it")
    with Progress(4) as progress:
        progress.next(f"reading {args.table}")
        foreign = read_columns(args.table)
        progress.next("converting")
        beside = read_columns(args.rows) if args.rows else None
        converted = convert(foreign, mapping, args.table, _added(args.add), beside)
        progress.next("checking")
        columns = complete(converted, args.table)
        progress.next(f"writing {args.out}")
        write_runs(columns, args.out)
    note_power(columns, args.table)
    print(f"{len(columns['run_id'])} runs of {len(set(columns['family']))} families; {args.out}")
    return 0


def _added(given: list[str]) -> dict[str, str | float]:
    """NAME=VALUE as columns. Text that is a number becomes a number."""
    added: dict[str, str | float] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not (name and sign and value):
            raise UserError(f"--add {one} is no NAME=VALUE; correct it")
        try:
            added[name] = float(value)
        except ValueError:
            added[name] = value
    return added
