"""The columns of a grid row: everything that defines one measured configuration, and the allowed values.

Only this module says so. The check of a grid, the runs table, the proxies and the manual read it here. A default is
frozen: after its release it never changes, because a column at its default is not part of the row's key. So old results
keep their names when a column is added.
"""

import math

from jouleline.schemas import Column
from jouleline.schemas.families import ENCODER_TASKS, FAMILIES

TASKS = (*ENCODER_TASKS, "clm")
PRECISIONS = ("fp32", "bf16", "fp16")
LORA_TARGETS = {
    **{"query": ("query",), "key": ("key",), "value": ("value",)},
    "attention.output.dense": ("attention_output",),
    "intermediate.dense": ("up",),
    "output.dense": ("attention_output", "down"),
}
"""Parts of a layer that carry adapters, by what `lora_targets` may name in every family: BERT's module names, of which
`output.dense` is the end of two."""
DECODER_TARGETS = {
    **{"q": ("query",), "k": ("key",), "v": ("value",), "o": ("attention_output",)},
    **{"gate": ("gate",), "up": ("up",), "down": ("down",)},
}
"""The short names that decoders understand too; only gated ones have a gate."""
DISTILBERT_TARGETS = {
    **{"q_lin": ("query",), "k_lin": ("key",), "v_lin": ("value",)},
    **{"out_lin": ("attention_output",), "lin1": ("up",), "lin2": ("down",)},
}
"""DistilBERT's own names of the same layers; it understands both."""

_C = Column
_COUNT = (1, 10**6)
_LENGTH = (1, 10**8)

ROW_COLUMNS: tuple[Column, ...] = (
    _C("model_type", "string", "", "Model family of transformers", "bert", choices=tuple(FAMILIES)),
    _C("checkpoint", "string", "", "Local checkpoint or hub name to start from; null: random initialisation"),
    _C("task", "string", "", "Head that is trained", "classification", choices=TASKS),
    _C(
        "dataset",
        "string",
        "",
        "docstrings, source (clm) or images (vit), of Python's library; or glue/NAME",
        "docstrings",
    ),
    _C("layers", "int32", "", "Layers (L)", required=True, bounds=(1, 10**4)),
    _C("hidden", "int32", "", "Hidden width (d)", required=True, bounds=_COUNT),
    _C("heads", "int32", "", "Attention heads (h)", required=True, bounds=_COUNT),
    _C("intermediate", "int32", "", "Feed-forward width (ff)", required=True, bounds=_COUNT),
    # Eight tokens leave room for text between the special tokens.
    _C("seq_len", "int32", "tokens", "Sequence length (S)", required=True, bounds=(8, 10**8)),
    _C(
        "micro_batch", "int32", "sequences", "Sequences per device and pass (B)", required=True, bounds=_COUNT
    ),
    _C("grad_accum", "int32", "", "Forward passes per optimizer step", 1, bounds=_COUNT),
    _C("vocab_size", "int32", "", "Vocabulary (V)", 30522, bounds=(64, 10**8)),
    _C("max_positions", "int32", "", "Position embeddings (P)", 512, bounds=(8, 10**8)),
    _C("num_labels", "int32", "", "Classes; null: as many as the dataset has", bounds=(2, 10**6)),
    _C("precision", "string", "", "Arithmetic of the matrix multiplications", "fp32", choices=PRECISIONS),
    _C("attention", "string", "", "Attention kernel: sdpa is fused", "sdpa", choices=("sdpa", "eager")),
    _C("frozen_layers", "int32", "", "Layers frozen, from the bottom", 0, bounds=(0, 10**4)),
    _C("lora_rank", "int32", "", "Rank of LoRA adapters; 0: full fine-tuning", 0, bounds=(0, 10**6)),
    _C("lora_targets", "string", "", "Modules that get adapters, separated by commas", "query,value"),
    _C("gradient_checkpointing", "bool", "", "Recompute activations in the backward pass", False),
    _C("optimizer", "string", "", "Optimizer", "adamw", choices=("adamw", "sgd")),
    _C("learning_rate", "float64", "", "Learning rate, constant, above 0", 5e-5, bounds=(1e-12, math.inf)),
    _C(
        "zero_stage",
        "int32",
        "",
        "DeepSpeed ZeRO stage; 3: all is sharded",
        0,
        choices=(0, 1, 2, 3),
        bounds=(0, 3),
    ),
    _C("tensor_parallel", "int32", "", "Tensor-parallel degree (t)", 1, bounds=_COUNT),
    _C("nodes", "int32", "nodes", "Nodes", 1, bounds=_COUNT),
    _C("gpus_per_node", "int32", "devices", "Devices on each node; on a CPU one rank each", 1, bounds=_COUNT),
    _C("seed", "int32", "", "Seed of initialisation and data order", 0, bounds=(0, math.inf)),
    _C("replicate", "int32", "", "Number of the repetition, from 1", 1, bounds=_COUNT),
    _C("kv_heads", "int32", "", "Heads of keys and values (k); null: as many as heads", bounds=_COUNT),
    _C("head_dim", "int32", "", "Width of a head (a); null: hidden / heads", bounds=_COUNT),
    _C("tied", "bool", "", "Head and embedding are one matrix; null: as the family has it"),
    _C("sliding_window", "int32", "tokens", "Tokens that attention looks back; null: all", bounds=_LENGTH),
    _C("image_size", "int32", "pixels", "Side of an image (vit only)", bounds=_COUNT),
    _C("patch_size", "int32", "pixels", "Side of a patch (vit only)", bounds=_COUNT),
)

BY_NAME = {column.name: column for column in ROW_COLUMNS}

# Columns for the analysis only. They are not part of a row's key, so changing one measures nothing again.
LABEL_COLUMNS = ("split", "label")
# Ways to write a row that are turned into columns when it is read.
SUGAR_COLUMNS = ("global_batch", "replicates", "model")
