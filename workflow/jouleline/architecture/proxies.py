"""The proxies of a run: what its configuration alone says about compute, memory traffic and communication."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from jouleline.architecture import compute, memory, parameters, traffic
from jouleline.architecture.columns import read_columns
from jouleline.errors import UserError

UNITS = {
    "compute_flop": "FLOP per device and step",
    "compute_nominal_flop": "FLOP per device and step, textbook multiples",
    "memory_byte": "byte per device and step",
    "comm_byte": "byte sent per device and step, all collectives",
    "comm_calls": "collectives per device and step",
    "comm_byte_tp": "byte, the tensor-parallel part of comm_byte",
    "comm_calls_tp": "collectives, the tensor-parallel part of comm_calls",
    "comm_blocking": "share of comm_byte that no computing overlaps",
    "matmul_launches": "matrix products per device and step",
    "parameters": "parameters of the model",
    "trainable_parameters": "parameters that are trained",
    "tokens_per_step": "padded tokens per step, all devices",
    "samples_per_step": "sequences per step, all devices",
    "paper_compute": "the paper's C per step: (12 L d^2 + 3 L S d) x tokens",
    "paper_memory": "the paper's M: B S d L, B the global batch",
}


def proxies(rows: Any) -> dict[str, Any]:
    """Every proxy of UNITS, for one row (floats) or many (float64 arrays, one entry per row).

    `rows` is a row's dict, a list of them, a mapping of columns or a DataFrame; what a row leaves out takes
    the runs table's default. "Step" is one optimizer step. Raises UserError for a row that no model can have.
    """
    c, scalar = read_columns(rows)
    c.data_parallel = c.device_count / c.tensor_parallel
    c.open_layers = c.layers - c.frozen_layers
    c.is_full = (c.frozen_layers == 0) & (c.lora_rank == 0)
    c.adapters = parameters.adapters(c)
    _refuse(c)
    values = _evaluate(c)
    return {name: float(values[name][0]) if scalar else values[name] for name in UNITS}


def _evaluate(c: SimpleNamespace) -> dict[str, np.ndarray]:
    p = parameters.count(c)
    t = c.tensor_parallel
    flop = compute.step_flop(c)
    sequences = c.micro_batch * c.grad_accum
    samples = sequences * c.data_parallel
    tokens = samples * c.seq_len
    dp = traffic.data_parallel_traffic(c, p)
    tp_byte, tp_calls = traffic.tensor_parallel_traffic(c)
    comm_byte = dp.byte + tp_byte
    d, layers = c.hidden, c.layers
    return {
        "compute_flop": sequences * (flop.encoder / t + flop.rest),
        "compute_nominal_flop": sequences * (flop.nominal / t + flop.nominal_rest),
        "memory_byte": memory.memory_byte(c, p, traffic.element_byte(c)),
        "comm_byte": comm_byte,
        "comm_calls": dp.calls + tp_calls,
        "comm_byte_tp": tp_byte,
        "comm_calls_tp": tp_calls,
        "comm_blocking": (dp.blocking_byte + tp_byte) / np.where(comm_byte > 0, comm_byte, 1),
        "matmul_launches": c.grad_accum * compute.launches(c),
        "parameters": p.total,
        "trainable_parameters": p.trainable,
        "tokens_per_step": tokens,
        "samples_per_step": samples,
        "paper_compute": (12 * layers * d * d + 3 * layers * c.seq_len * d) * tokens,
        "paper_memory": samples * c.seq_len * d * layers,
    }


def _refuse(c: SimpleNamespace) -> None:
    """Raise UserError for the first row whose numbers contradict each other."""
    rules = [
        (
            (c.layers < 1) | (c.hidden < 1) | (c.seq_len < 1) | (c.micro_batch < 1),
            "a size below 1; make it positive",
        ),
        (c.frozen_layers > c.layers, "more frozen_layers than layers; lower frozen_layers"),
        (
            c.data_parallel != np.floor(c.data_parallel),
            "tensor_parallel does not divide the device count; change one",
        ),
    ]
    for broken, message in rules:
        if broken.any():
            raise UserError(f"row {int(broken.argmax())} has {message}")
