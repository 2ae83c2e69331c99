"""Put the calibrations of a node and of the links between nodes together: a JSON file and a table."""

import argparse
from pathlib import Path

from jouleline.files import read_json, run_script, write_json
from jouleline.measure.calibrate.document import table_rows, with_links
from jouleline.schemas import write_table
from jouleline.schemas.calibration import CALIBRATION


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and write the files. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", type=Path, required=True, help="file of calibrate_node")
    parser.add_argument("--links", nargs="*", type=Path, default=[], help="files of calibrate_links")
    parser.add_argument("--out", type=Path, required=True, help="calibration.json")
    parser.add_argument("--table", type=Path, required=True, help="the same as Parquet")
    arguments = parser.parse_args(argv)

    def body() -> None:
        found = with_links(read_json(arguments.node), map(read_json, arguments.links))
        write_table(CALIBRATION, table_rows(found), arguments.table)
        write_json(arguments.out, found)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
