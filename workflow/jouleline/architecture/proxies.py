"""The proxies of a run: what its configuration alone says about compute, memory traffic and communication."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from jouleline.architecture import compute, memory_traffic, parameters, traffic
from jouleline.architecture.columns import Texts, read_columns
from jouleline.errors import UserError
from jouleline.schemas.families import Family, family

UNITS = {
    "compute_flop": "FLOP per device and step",
    "compute_nominal_flop": "FLOP per device and step, textbook multiples",
    "attention_flop": "FLOP per device and step of attention's two products over all S x S pairs, in compute_flop",
    "attention_causal_flop": "the same of the pairs that a causal mask leaves; without a mask all of them",
    "attention_tile_flop": "attention_flop with heads as wide as a GPU's tiles: 64, or the next multiple of 128",
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

    `rows` is a row's dict, a list of them, a mapping of columns or a DataFrame. A missing column takes the runs table's
    default. "Step" is one optimizer step. Raises UserError for a row that no model can have.
    """
    c, scalar = read_columns(rows)
    values = {name: np.empty(len(c.layers)) for name in UNITS}
    for group in groups(c):
        for name, value in _evaluate(group).items():
            values[name][group.rows] = value
    return {name: float(values[name][0]) if scalar else values[name] for name in UNITS}


def groups(c: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """The rows in groups of one family and one task, checked, with the columns that follow from others.

    Besides the columns each has family (a Family), task (a text) and rows (indices). Raises UserError for a row that no
    model can have.
    """
    _refuse(c)
    tasks, types = c.task.values, c.model_type.values
    kinds = c.model_type.codes % len(types) * len(tasks) + c.task.codes % len(
        tasks
    )  # the code of a null is -1
    for kind in np.unique(kinds):
        model_type, task = divmod(int(kind), len(tasks))
        rows = np.flatnonzero(kinds == kind) if kind != kinds[0] or (kinds != kind).any() else slice(None)
        part = SimpleNamespace(**{name: _take(values, rows) for name, values in vars(c).items()})
        part.rows, part.task = rows, tasks[task]
        part.model_type = types[model_type]
        part.family = family(part.model_type)
        _derive(part)
        yield part


def _take(values: Any, rows: np.ndarray | slice) -> Any:
    return values.take(rows) if isinstance(values, Texts) else values[rows]


def _derive(c: SimpleNamespace) -> None:
    """Fill in what a row leaves to its family, and what follows from other columns."""
    f: Family = c.family
    if c.task not in f.tasks:
        raise UserError(f"{c.model_type} has no head for task {c.task!r}; use one of {', '.join(f.tasks)}")
    _check_own(c)
    own_dim = ~np.isnan(c.head_dim)
    kv_heads = np.where(np.isnan(c.kv_heads), c.heads, c.kv_heads)
    # Without own dimensions the widths are d itself, even if the heads do not divide it.
    c.query_width = np.where(own_dim, c.heads * c.head_dim, c.hidden)
    c.key_width = np.where(kv_heads == c.heads, c.query_width, kv_heads * (c.query_width / c.heads))
    c.kv_heads, c.head_dim = kv_heads, c.query_width / c.heads
    c.tied = np.where(np.isnan(c.tied), f.tied, c.tied)
    c.split_vocabulary = f.split_head & (c.tied > 0)
    if f.patches:
        c.seq_len = (c.image_size // c.patch_size) ** 2 + 1
    c.data_parallel = c.device_count / c.tensor_parallel
    c.open_layers = c.layers - c.frozen_layers
    c.is_full = (c.frozen_layers == 0) & (c.lora_rank == 0)
    c.adapters = parameters.adapters(c)


def _evaluate(c: SimpleNamespace) -> dict[str, np.ndarray]:
    p = parameters.count(c)
    share = parameters.shares(c)
    flop = compute.step_flop(c)
    sequences = c.micro_batch * c.grad_accum
    samples = sequences * c.data_parallel
    tokens = samples * c.seq_len
    dp = traffic.data_parallel_traffic(c, p)
    tp_byte, tp_calls = traffic.tensor_parallel_traffic(c)
    comm_byte = dp.byte + tp_byte
    d, layers, t = c.hidden, c.layers, c.tensor_parallel
    uneven = (flop.products + flop.attention) * (share.attention - 1 / t)
    attention = sequences * flop.attention * share.attention
    return {
        "compute_flop": sequences * (flop.layers / t + uneven + (flop.embedding + flop.head * share.head)),
        "compute_nominal_flop": sequences * (flop.nominal / t + flop.nominal_rest),
        "attention_flop": attention,
        "attention_causal_flop": attention * ((c.seq_len + 1) / (2 * c.seq_len) if c.family.causal else 1.0),
        "attention_tile_flop": attention * tile_width(c.head_dim) / c.head_dim,
        "memory_byte": memory_traffic.memory_byte(c, p, traffic.element_byte(c)),
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


def tile_width(width: np.ndarray) -> np.ndarray:
    """The width that a GPU's matrix product computes for a head of `width`: 64, or a multiple of 128.

    Products are computed in tiles. What a tile has beyond the matrix is computed and discarded. Tiles are 64, 128 or
    256 wide (NVIDIA, Matrix Multiplication Background User's Guide, "Tile Quantization").
    """
    return np.where(width <= 64, 64.0, 128 * np.ceil(width / 128))


def _refuse(c: SimpleNamespace) -> None:
    """Raise UserError for the first row whose numbers contradict each other."""
    _raise_first(
        c,
        {
            "a size below 1; make it positive": (c.layers < 1)
            | (c.hidden < 1)
            | (c.seq_len < 1)
            | (c.micro_batch < 1),
            "more frozen_layers than layers; lower frozen_layers": c.frozen_layers > c.layers,
            "tensor_parallel that does not divide the device count; change one": c.device_count
            % c.tensor_parallel
            != 0,
        },
    )


def _check_own(c: SimpleNamespace) -> None:
    """Raise UserError where a row gives a column that its family does not have."""
    f, kind = c.family, c.model_type
    heads = c.kv_heads
    given = {name: ~np.isnan(getattr(c, name)) for name in ("head_dim", "image_size", "patch_size")}
    rules = {"kv_heads that do not divide heads; change one": (heads < 1) | (c.heads % heads > 0)}
    if not f.own_kv:
        rules[f"kv_heads, and {kind} has as many as heads; leave kv_heads out"] = (
            heads != c.heads
        ) & ~np.isnan(heads)
    if not f.own_head_dim:
        own = given["head_dim"] & (c.head_dim * c.heads != c.hidden)
        rules[f"head_dim, which is hidden / heads in {kind}; leave head_dim out"] = own
    if f.patches:
        missing = ~(given["image_size"] & given["patch_size"])
        rules["no image_size or patch_size; give both"] = missing
        rules["a patch_size that does not divide image_size; change one"] = ~missing & (
            c.image_size % c.patch_size > 0
        )
    _raise_first(c, rules)


def _raise_first(c: SimpleNamespace, rules: dict[str, np.ndarray]) -> None:
    for message, broken in rules.items():
        if broken.any():
            rows = getattr(c, "rows", slice(None))
            first = int(broken.argmax())
            raise UserError(f"row {first if isinstance(rows, slice) else int(rows[first])} has {message}")
