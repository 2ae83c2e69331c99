"""Measure what this node's devices can do and what they draw, before the campaign."""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from jouleline.files import run_script, write_json
from jouleline.protocol import complete_protocol


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, calibrate, write the JSON file and the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", type=json.loads, required=True, help="protocol as JSON")
    parser.add_argument("--out", type=Path, required=True, help="calibration.json")
    parser.add_argument("--table", type=Path, required=True, help="the same as Parquet")
    parser.add_argument("--budget-s", type=float, help="time it may take (default: protocol calibration_s)")
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.energy.node_power import calibration_powers
        from jouleline.measure.calibrate import calibrate, table_rows, with_powers
        from jouleline.measure.device_lock import DeviceLock
        from jouleline.measure.lineage import stop_with_snakemake
        from jouleline.schemas import write_table
        from jouleline.schemas.calibration import CALIBRATION

        stop_with_snakemake()
        protocol = complete_protocol(arguments.protocol)
        with DeviceLock(), TemporaryDirectory(prefix="jouleline-calibration-") as folder:
            found = calibrate(protocol, arguments.budget_s or protocol["calibration_s"], folder)
            powers = calibration_powers(f"{folder}/meter", found["software"]["devices"])
        found = with_powers(found, powers)
        write_table(CALIBRATION, table_rows(found), arguments.table)
        write_json(arguments.out, found)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
