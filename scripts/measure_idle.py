"""Measure what this node draws while nothing runs on it."""

import argparse
import json
from pathlib import Path

from jouleline.files import run_script, write_json
from jouleline.protocol import complete_protocol


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, measure, write the JSON file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", type=json.loads, required=True, help="protocol as JSON")
    parser.add_argument("--out", type=Path, required=True, help="idle.json")
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.measure.idle import measure_idle
        from jouleline.measure.lineage import stop_with_snakemake

        stop_with_snakemake()
        write_json(arguments.out, measure_idle(complete_protocol(arguments.protocol)))

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
