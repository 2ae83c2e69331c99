"""Measure what the links between nodes can do. Under srun this program is the agent of each node."""

import argparse
import os
from pathlib import Path

from jouleline.campaign.protocol import complete_protocol
from jouleline.commands.options import json_object
from jouleline.files import run_script
from jouleline.measure.node import place


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and be this node's agent. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", required=True, help="protocol as JSON")
    parser.add_argument("--of-nodes", type=int, required=True, help="nodes that the links span")
    parser.add_argument("--devices", type=int, required=True, help="devices of each node")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, in a folder shared by the nodes")
    parser.add_argument("--budget-s", type=float, help="time it may take (default: protocol calibration_s)")
    place.add_options(parser)
    arguments = parser.parse_args(argv)

    def body() -> int:
        protocol = complete_protocol(json_object(arguments.protocol, "--protocol"))
        here = place.find(arguments, arguments.of_nodes, arguments.devices, "the link calibration")
        # Before torch is imported.
        os.environ.setdefault("OMP_NUM_THREADS", str(protocol["threads_per_device"]))
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        from jouleline.measure.calibrate.link_agent import LinkAgent
        from jouleline.measure.node.orphan import stop_with_snakemake

        stop_with_snakemake()
        budget_s = arguments.budget_s or protocol["calibration_s"]
        return LinkAgent(protocol, budget_s, here, arguments.out).run()

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
