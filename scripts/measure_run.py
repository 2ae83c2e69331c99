"""Measure one row: fine-tune it beside the sidecar. Under srun the same program is the agent of each node."""

import argparse
import json
import os
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import run_script

# Before anything imports the libraries that read them. A rank's threads are those of the protocol, not all the
# machine's; without a network the hub client would retry for minutes.
_ENVIRONMENT = {
    "HF_HUB_ETAG_TIMEOUT": "5",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and be this node's agent; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-id", required=True)
    parser.add_argument(
        "--row", required=True, help="the row as JSON; columns at their default may be absent"
    )
    parser.add_argument("--protocol", required=True, help="the protocol as JSON; likewise")
    parser.add_argument("--code-digest", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out-dir", type=Path, required=True, help="folder of the run, shared by its nodes")
    parser.add_argument(
        "--node-rank", type=int, default=_number("SLURM_NODEID"), help="default: SLURM_NODEID"
    )
    parser.add_argument("--nodes", type=int, default=_number("SLURM_NNODES"), help="default: SLURM_NNODES")
    parser.add_argument("--address", help="how other nodes reach this one (default: its host name)")
    arguments = parser.parse_args(argv)
    return run_script(lambda: _run(arguments))


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None


def _run(arguments: argparse.Namespace) -> int:
    from jouleline.config import complete_protocol
    from jouleline.grid import complete_row, row_key

    row = complete_row(_object(arguments.row, "--row"))
    protocol = complete_protocol(_object(arguments.protocol, "--protocol"))
    nodes = row["nodes"]
    # A single-node row inside a larger allocation is one agent, whatever the allocation says.
    node = (arguments.node_rank or 0) if nodes > 1 else 0
    if nodes > 1 and arguments.nodes is not None and arguments.nodes != nodes:
        raise UserError(
            f"the row asks for {nodes} nodes and {arguments.nodes} were given; start one agent per node"
        )
    if nodes > 1 and (arguments.node_rank is None or not 0 <= node < nodes):
        raise UserError(f"the row asks for {nodes} nodes; start this program under srun or give --node-rank")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if row["checkpoint"] is None or Path(row["checkpoint"]).exists():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from jouleline.measure.agent import Agent, Order
    from jouleline.measure.lineage import stop_with_snakemake

    stop_with_snakemake()

    order = Order(
        run_id=arguments.run_id,
        row=row,
        row_key=row_key(row),
        protocol=protocol,
        code_digest=arguments.code_digest,
        dataset=arguments.dataset,
        out_dir=arguments.out_dir,
        node=node,
        address=arguments.address,
    )
    return Agent(order).run()


def _object(text: str, name: str) -> dict:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is not JSON ({error}); give one object in quotes") from error
    if not isinstance(value, dict):
        raise UserError(f"{name} must be a JSON object, not {text[:40]!r}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
