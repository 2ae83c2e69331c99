"""All feasible ways to run an ask: device counts, ZeRO, tensor parallelism, micro-batches and checkpointing."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jouleline.campaign import models
from jouleline.campaign.grid import complete_row
from jouleline.campaign.strategy import problems
from jouleline.choose.ask import CHOSEN, Ask
from jouleline.errors import UserError
from jouleline.schemas.runs import RUNS

Columns = dict[str, np.ndarray]


def enumerate_rows(ask: Ask) -> list[dict[str, Any]]:
    """Complete rows of every feasible candidate, all with the ask's global batch. Raises UserError where none can run,
    with the reason of the first."""
    found, refused = [], ""
    for choice in _choices(ask):
        if any(choice[name] != value for name, value in ask.fixed.items()):
            continue
        row = complete_row({**ask.row, **choice})
        models.follow(row, ask.row)
        wrong = problems(row, "auto")
        if not wrong:
            found.append(row)
        refused = refused or (wrong[0] if wrong else "")
    if not found:
        why = (
            refused
            or f"no split of {ask.global_batch} sequences over 1 to {ask.devices} devices fits what it fixes"
        )
        raise UserError(f"{ask.name}: no configuration can run: {why}")
    return found


def _choices(ask: Ask) -> Iterator[dict[str, Any]]:
    for devices in _powers(ask.devices):
        nodes = -(-devices // ask.devices_per_node)
        if devices % nodes:
            continue
        for tensor in (t for t in _powers(devices) if devices % t == 0):
            replicas = devices // tensor
            if ask.global_batch % replicas:
                continue
            each = ask.global_batch // replicas
            for micro in (b for b in _powers(each) if each % b == 0):
                for stage in (0, 1, 2, 3) if replicas > 1 else (0,):
                    for again in (False, True):
                        values = (nodes, devices // nodes, tensor, stage, micro, each // micro, again)
                        yield dict(zip(CHOSEN, values, strict=True))


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself."""
    return sorted({2**power for power in range(most.bit_length())} | {most})


def columns(rows: list[dict[str, Any]], ask: Ask) -> Columns:
    """The candidates as columns of a runs table, [K] each, with the ask's device and work."""
    names = [column.name for column in RUNS.columns if column.name in rows[0] and column.name != "replicate"]
    table = {name: np.array([row[name] for row in rows], dtype=object) for name in names}
    if ask.device is not None:
        table["device"] = np.full(len(rows), ask.device, dtype=object)
    return table | {"steps": np.full(len(rows), steps(ask))}


def steps(ask: Ask) -> float:
    """Optimizer steps of the work. An incomplete last step counts as a step."""
    name, amount = ask.work
    per_step = {"steps": 1, "samples": ask.global_batch, "tokens": ask.global_batch * ask.row["seq_len"]}[
        name
    ]
    return float(math.ceil(amount / per_step))


def name(row: dict[str, Any]) -> str:
    """A candidate in a few words: "8 devices, ZeRO-3, 2 x tensor parallel, 4 sequences x 2, checkpointing"."""
    devices = row["nodes"] * row["gpus_per_node"]
    parts = [f"{devices} device{'' if devices == 1 else 's'}"]
    parts += [f"on {row['nodes']} nodes"] if row["nodes"] > 1 else []
    replicas = devices // row["tensor_parallel"]
    parts += [f"tensor parallel {row['tensor_parallel']}"] if row["tensor_parallel"] > 1 else []
    parts += [f"ZeRO-{row['zero_stage']}" if row["zero_stage"] else "data parallel"] if replicas > 1 else []
    parts.append(f"batch {row['micro_batch']} x {row['grad_accum']}")
    parts += ["checkpointing"] if row["gradient_checkpointing"] else []
    return ", ".join(parts)
