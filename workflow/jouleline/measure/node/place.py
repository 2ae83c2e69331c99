"""Which of a job's nodes this is, by srun or by the command line."""

import argparse
import os
from dataclasses import dataclass

from jouleline.errors import UserError


@dataclass(frozen=True)
class Place:
    """This node among the nodes of its job, with `per_node` ranks on each. Other nodes reach it at `address` (None: at
    any of its addresses)."""

    node: int = 0
    nodes: int = 1
    per_node: int = 1
    address: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options by which a program learns its place."""
    rank, nodes = _number("SLURM_NODEID"), _number("SLURM_NNODES")
    parser.add_argument("--node-rank", type=int, default=rank, help="default: SLURM_NODEID")
    parser.add_argument("--nodes", type=int, default=nodes, help="default: SLURM_NNODES")
    parser.add_argument("--address", help="how other nodes reach this one (default: at any of its addresses)")


def find(arguments: argparse.Namespace, nodes: int, per_node: int, what: str) -> Place:
    """The place in a job with `nodes` nodes, which `what` asks for.

    Raises UserError where the options contradict it.
    """
    node, given = arguments.node_rank, arguments.nodes
    if nodes == 1:  # this is one agent, also inside a larger allocation
        return Place(0, 1, per_node, arguments.address)
    if given is not None and given != nodes:
        raise UserError(f"{what} asks for {nodes} nodes and {given} were given; start one agent per node")
    if node is None or not 0 <= node < nodes:
        raise UserError(f"{what} asks for {nodes} nodes; start this program under srun or give --node-rank")
    return Place(node, nodes, per_node, arguments.address)


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None
