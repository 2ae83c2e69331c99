"""Measure what this node's devices can do and the power that they draw, before the campaign."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jouleline.campaign.protocol import complete_protocol
from jouleline.commands.options import json_object
from jouleline.files import canonical_json, read_json, run_script, write_json
from jouleline.provenance import code_digest, digest_of


def measure(protocol: Mapping[str, Any], budget_s: float) -> dict[str, Any]:
    """The calibration of this node, with its powers. Raises UserError."""
    from jouleline.energy.node_power import calibration_powers
    from jouleline.measure.calibrate.document import with_entries
    from jouleline.measure.calibrate.node import calibrate
    from jouleline.measure.node.device_lock import DeviceLock

    with DeviceLock(), TemporaryDirectory(prefix="jouleline-calibration-") as folder:
        found = calibrate(protocol, budget_s, folder)
        powers = calibration_powers(f"{folder}/meter", found["software"]["devices"])
    return with_entries(found, powers)


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, calibrate, write the JSON file. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", required=True, help="protocol as JSON")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--devices", type=int, help="GPUs to take, the first of those visible (default: all)")
    parser.add_argument(
        "--known", type=Path, help="folder of calibrations by device and software, to take or add to"
    )
    parser.add_argument("--budget-s", type=float, help="time it may take (default: protocol calibration_s)")
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.measure.calibrate.node import holds_for
        from jouleline.measure.node.environment import take_devices
        from jouleline.measure.node.orphan import stop_with_snakemake

        stop_with_snakemake()
        protocol = complete_protocol(json_object(arguments.protocol, "--protocol"))
        take_devices(protocol, arguments.devices)
        budget_s = arguments.budget_s or protocol["calibration_s"]
        holds = holds_for(protocol, budget_s) if arguments.known else None
        if holds is None:
            write_json(arguments.out, measure(protocol, budget_s))
            return
        key = digest_of([canonical_json(holds), code_digest([Path(__file__)])])
        kept = arguments.known / f"{key}.json"
        if kept.exists():
            found = read_json(kept)
            print(
                f"taken from {kept}, measured {found['measured_utc']}; delete it to measure anew",
                file=sys.stderr,
            )
        else:
            found = measure(protocol, budget_s)
            write_json(kept, found)
        write_json(arguments.out, found)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
