"""What a row may ask for: checks of model shape, parallel strategy and device that need no torch.

The grid calls `problems` when the workflow is parsed, before any job is sent. The node agent calls `require` again,
with the device that it really has. Standard library only, so that a Snakefile is parsed in milliseconds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jouleline.errors import UserError
from jouleline.schemas.families import FAMILIES
from jouleline.schemas.row import DECODER_TARGETS, DISTILBERT_TARGETS, LORA_TARGETS, ROW_COLUMNS

GLUE_TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "wnli")
"""GLUE tasks with class labels (stsb is a regression)."""
_ONE_MATRIX = (
    "gpt2",
    "phi3",
)  # one matrix for queries, keys and values; each of them is cut into equal parts


def problems(row: Mapping[str, Any], device: str = "auto") -> list[str]:
    """Everything that prevents a complete `row` from running on `device` ("auto", "cpu" or "cuda").

    Returns one line per problem: what is wrong, and the remedy. The list is empty where the row can run. "auto"
    means that the device is not known yet; the node then checks what depends on it.
    """
    found = [text for column in ROW_COLUMNS if (text := column.problem(row[column.name]))]
    return found or contradictions(row, device)


def contradictions(row: Mapping[str, Any], device: str = "auto") -> list[str]:
    """As `problems`, for a row in which every single value is valid."""
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


def tasks(model_type: str) -> tuple[str, ...]:
    """The tasks that a family can be trained for."""
    return FAMILIES[model_type].tasks


def lora_names(model_type: str) -> dict[str, tuple[str, ...]]:
    """The names that `lora_targets` may use in a family, and the parts of a layer where each puts adapters."""
    family = FAMILIES[model_type]
    short = DECODER_TARGETS if family.causal else {}
    names = LORA_TARGETS | {k: v for k, v in short.items() if k != "gate" or family.gated}
    return names | (DISTILBERT_TARGETS if model_type == "distilbert" else {})


def _names(targets: str) -> list[str]:
    return [name.strip() for name in targets.split(",") if name.strip()]


def lora_parts(row: Mapping[str, Any]) -> frozenset[str]:
    """The parts of a layer that carry adapters, from `lora_targets` (one string separated by commas).

    Raises KeyError for a name that the row's family does not have.
    """
    known = lora_names(row["model_type"])
    return frozenset(part for name in _names(row["lora_targets"]) for part in known[name])


def _shape_problems(row: Mapping[str, Any]) -> Iterator[str]:
    yield from _family_problems(row)
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


def _family_problems(row: Mapping[str, Any]) -> Iterator[str]:
    """What a family does not have: tasks, heads for keys and values, a head width, images, kernels."""
    family, task, heads, kv_heads = (row[name] for name in ("model_type", "task", "heads", "kv_heads"))
    facts = FAMILIES[family]
    if task not in tasks(family):
        yield f"task {task} does not go with model_type {family}; choose {' or '.join(tasks(family))}"
    if kv_heads is not None and (not facts.own_kv or kv_heads > heads or heads % kv_heads):
        remedy = f"a divisor of heads {heads}" if facts.own_kv else "nothing, this family has none of its own"
        yield f"kv_heads {kv_heads} does not go with model_type {family}; give {remedy}"
    if row["head_dim"] is not None and not facts.own_head_dim:
        yield f"head_dim {row['head_dim']} is not hidden / heads, which model_type {family} needs; leave it out"
    if row["sliding_window"] is not None and not facts.windows:
        windowed = ", ".join(name for name, one in FAMILIES.items() if one.windows)
        yield f"sliding_window does not go with model_type {family}; choose from {windowed}"
    if (attention := row["attention"]) not in facts.attentions:
        only = " or ".join(facts.attentions)
        yield f"attention {attention} does not go with model_type {family}, which caps its scores; give {only}"
    if row["tied"] is not None and not facts.causal:
        yield f"tied does not go with model_type {family}; leave it out"
    images = [name for name in ("image_size", "patch_size") if row[name] is not None]
    if facts.patches != (len(images) == 2):
        yield f"image_size and patch_size go together, with model_type vit and no other; not with {family}"
    elif images and row["image_size"] % row["patch_size"]:
        yield f"image_size {row['image_size']} is not divisible by patch_size {row['patch_size']}; change one of them"
    elif images and row["seq_len"] != (row["image_size"] // row["patch_size"]) ** 2 + 1:
        patches = (row["image_size"] // row["patch_size"]) ** 2
        yield f"seq_len {row['seq_len']} is not the {patches} patches and one; give {patches + 1}"


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
    elif row["model_type"] in _ONE_MATRIX and (row["kv_heads"] or shards) % shards:
        yield (
            f"kv_heads {row['kv_heads']} is not divisible by tensor_parallel {shards}; change one, because "
            f"{row['model_type']} has queries, keys and values in one matrix"
        )
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
    known = lora_names(row["model_type"])
    names = _names(row["lora_targets"])
    for name in names:
        if name not in known:
            yield f"lora_targets names {name!r}; choose from {', '.join(known)}"
    if not names:
        yield f"lora_targets is empty; choose from {', '.join(known)}"
    if rank > row["hidden"]:
        yield f"lora_rank {rank} is more than hidden {row['hidden']}; lower it"
    if row["tensor_parallel"] > 1:
        yield "LoRA does not go with tensor_parallel > 1 (adapters are not split); use one of the two"
    if row["frozen_layers"] == row["layers"]:
        yield "LoRA has no layer left for adapters; lower frozen_layers"


def _dataset_problems(row: Mapping[str, Any]) -> Iterator[str]:
    if row["task"] not in tasks(row["model_type"]):  # that is said already
        return
    name, _, task = str(row["dataset"]).partition("/")
    texts = ["source"] if row["task"] == "clm" else ["docstrings", "glue"]
    fitting = ["images"] if row["model_type"] == "vit" else texts
    fit = " or ".join(fitting).replace("glue", "glue/<task>")
    if name not in ("docstrings", "source", "images", "glue") or (task and name != "glue"):
        yield f"dataset {row['dataset']!r} is unknown; use {fit}"
    elif name not in fitting:
        yield f"dataset {row['dataset']} does not go with task {row['task']} of {row['model_type']}; use {fit}"
    elif name == "glue" and task not in GLUE_TASKS:
        yield f"glue task {task!r} is unknown or has no class labels; choose one of {', '.join(GLUE_TASKS)}"
