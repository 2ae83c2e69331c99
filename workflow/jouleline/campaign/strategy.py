"""What a row may ask for: the checks between model shape, parallel strategy and device that need no torch.

The grid calls `problems` at parse time, before any job is sent; the node agent calls `require` again with the
device it really has. The standard library is enough, so that a Snakefile can be parsed in milliseconds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jouleline.errors import UserError
from jouleline.schemas.row import LORA_TARGETS, ROW_COLUMNS

DISTILBERT_TARGETS = {
    "query": ("q_lin",),
    "key": ("k_lin",),
    "value": ("v_lin",),
    "attention.output.dense": ("out_lin",),
    "intermediate.dense": ("lin1",),
    "output.dense": ("out_lin", "lin2"),
}
"""DistilBERT's own names of the same layers; it understands both."""
GLUE_TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "wnli")
"""GLUE tasks with class labels (stsb is a regression)."""


def problems(row: Mapping[str, Any], device: str = "auto") -> list[str]:
    """Everything that keeps a complete `row` from running on `device` ("auto", "cpu" or "cuda").

    Returns one line per problem, each with what is wrong and the remedy; an empty list where the row can run.
    "auto" stands for a device that is not known yet: what depends on it is checked again on the node.
    """
    found = [text for column in ROW_COLUMNS if (text := column.problem(row[column.name]))]
    return found or contradictions(row, device)


def contradictions(row: Mapping[str, Any], device: str = "auto") -> list[str]:
    """As `problems`, of a row whose values are good each for itself."""
    return [*_shape_problems(row), *_parallel_problems(row), *_training_problems(row, device)]


def require(row: Mapping[str, Any], device: str) -> None:
    """Raise UserError with every problem of `row` on `device` in one line."""
    found = problems(row, device)
    if found:
        raise UserError("this row cannot run: " + "; ".join(found))


def device_count(row: Mapping[str, Any]) -> int:
    """Ranks of the whole job: nodes x gpus_per_node."""
    return row["nodes"] * row["gpus_per_node"]


def data_parallel(row: Mapping[str, Any]) -> int:
    """Data-parallel replicas: device_count / tensor_parallel."""
    return device_count(row) // row["tensor_parallel"]


def lora_modules(row: Mapping[str, Any]) -> list[str]:
    """Ends of the module names that carry adapters, from `lora_targets` (one string separated by commas).

    Raises KeyError for a name that the row's family does not have.
    """
    names = [name.strip() for name in row["lora_targets"].split(",") if name.strip()]
    known = {name: (name,) for name in LORA_TARGETS}
    if row["model_type"] == "distilbert":
        own = {module: (module,) for modules in DISTILBERT_TARGETS.values() for module in modules}
        known = {**DISTILBERT_TARGETS, **own}
    return sorted({module for name in names for module in known[name]})


def _shape_problems(row: Mapping[str, Any]) -> Iterator[str]:
    hidden, heads = row["hidden"], row["heads"]
    if hidden % heads:
        yield f"hidden {hidden} is not divisible by heads {heads}; change one of them"
    if row["seq_len"] > row["max_positions"]:
        yield (
            f"seq_len {row['seq_len']} needs more than the {row['max_positions']} position embeddings; "
            "lower seq_len or raise max_positions"
        )
    if row["frozen_layers"] > row["layers"]:
        yield f"frozen_layers {row['frozen_layers']} is more than layers {row['layers']}; lower it"


def _parallel_problems(row: Mapping[str, Any]) -> Iterator[str]:
    ranks, shards = device_count(row), row["tensor_parallel"]
    if ranks % shards:
        yield (
            f"tensor_parallel {shards} does not divide the {ranks} devices (nodes x gpus_per_node); "
            "change tensor_parallel, nodes or gpus_per_node"
        )
    if shards > row["heads"]:
        yield f"tensor_parallel {shards} is more than heads {row['heads']}; lower it, a head is not split"
    elif row["heads"] % shards:
        yield f"heads {row['heads']} is not divisible by tensor_parallel {shards}; change one"
    if row["intermediate"] % shards:
        yield f"intermediate {row['intermediate']} is not divisible by tensor_parallel {shards}; change one"


def _training_problems(row: Mapping[str, Any], device: str) -> Iterator[str]:
    if row["precision"] == "fp16" and device == "cpu":
        yield "precision fp16 does not train on a CPU; use bf16 or fp32, or device cuda"
    yield from _lora_problems(row)
    yield from _dataset_problems(row)


def _lora_problems(row: Mapping[str, Any]) -> Iterator[str]:
    rank = row["lora_rank"]
    if not rank:
        return
    try:
        modules = lora_modules(row)
    except KeyError as error:
        yield f"lora_targets names {error.args[0]!r}; choose from {', '.join(LORA_TARGETS)}"
    else:
        if not modules:
            yield f"lora_targets is empty; choose from {', '.join(LORA_TARGETS)}"
    if rank > row["hidden"]:
        yield f"lora_rank {rank} is more than hidden {row['hidden']}; lower it"
    if row["tensor_parallel"] > 1:
        yield "LoRA does not go with tensor_parallel > 1 (adapters are not split); use one of the two"
    if row["frozen_layers"] == row["layers"]:
        yield "LoRA has no layer left for adapters; lower frozen_layers"


def _dataset_problems(row: Mapping[str, Any]) -> Iterator[str]:
    name, _, task = str(row["dataset"]).partition("/")
    if name == "docstrings" and not task:
        return
    if name != "glue":
        yield f"dataset {row['dataset']!r} is unknown; use docstrings or glue/<task>"
    elif task not in GLUE_TASKS:
        yield f"glue task {task!r} is unknown or has no class labels; choose one of {', '.join(GLUE_TASKS)}"
