"""Measure one row: fine-tune it beside the sidecar. Under srun this program is the agent of each node."""

import argparse
import os
from pathlib import Path

from jouleline.commands.options import json_object
from jouleline.files import run_script
from jouleline.measure.node import place
from jouleline.measure.train.hub import offline_unless_reachable

# Set before anything imports the libraries that read them. A rank has the threads of the protocol, not all of the
# machine. Without a network the hub client would retry for minutes.
_ENVIRONMENT = {
    "HF_HUB_ETAG_TIMEOUT": "5",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and be this node's agent. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-id", required=True)
    parser.add_argument(
        "--row", required=True, help="the row as JSON; columns at their default may be absent"
    )
    parser.add_argument("--protocol", required=True, help="the protocol as JSON; likewise")
    parser.add_argument("--code-digest", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out-dir", type=Path, required=True, help="folder of the run, shared by its nodes")
    place.add_options(parser)
    arguments = parser.parse_args(argv)
    return run_script(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from jouleline.campaign.config import complete_protocol
    from jouleline.campaign.grid import complete_row, row_key

    row = complete_row(json_object(arguments.row, "--row"))
    protocol = complete_protocol(json_object(arguments.protocol, "--protocol"))
    here = place.find(arguments, row["nodes"], row["gpus_per_node"], "the row")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if row["checkpoint"] is None or Path(row["checkpoint"]).exists():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    else:
        offline_unless_reachable()
    from jouleline.measure.node.orphan import stop_with_snakemake
    from jouleline.measure.train.agent import RunAgent
    from jouleline.measure.train.record import RunRequest

    stop_with_snakemake()

    request = RunRequest(
        run_id=arguments.run_id,
        row=row,
        row_key=row_key(row),
        protocol=protocol,
        code_digest=arguments.code_digest,
        dataset=arguments.dataset,
        out_dir=arguments.out_dir,
        place=here,
    )
    return RunAgent(request).run()


if __name__ == "__main__":
    raise SystemExit(main())
