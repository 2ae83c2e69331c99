"""Measure the power of this node while nothing runs on it."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from jouleline.campaign.protocol import complete_protocol
from jouleline.commands.options import json_object
from jouleline.files import run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, measure, write the JSON file. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", required=True, help="protocol as JSON")
    parser.add_argument("--devices", type=int, help="GPUs to take, the first of those visible (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="idle.json")
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.energy.node_power import idle_devices
        from jouleline.measure.calibrate.idle import watch_idle
        from jouleline.measure.node.device_lock import DeviceLock
        from jouleline.measure.node.environment import take_devices
        from jouleline.measure.node.orphan import stop_with_snakemake

        stop_with_snakemake()
        protocol = complete_protocol(json_object(arguments.protocol, "--protocol"))
        take_devices(protocol, arguments.devices)
        with DeviceLock(), TemporaryDirectory(prefix="jouleline-idle-") as folder:
            found = watch_idle(protocol, folder)
            found["devices"] = idle_devices(folder)
        write_json(arguments.out, found)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
