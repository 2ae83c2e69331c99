"""The columns of a grid row: everything that defines one measured configuration.

`default` is frozen: once a column has been released its default never changes, because a column at its default
is not part of the row's key, and so old results keep their names when a column is added.
"""

from dataclasses import dataclass
from typing import Any

REQUIRED = object()


@dataclass(frozen=True)
class RowColumn:
    """One column of a row: type, frozen default (or REQUIRED), meaning, and what it may hold."""

    name: str
    type: type
    default: Any
    description: str
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


_C = RowColumn

ROW_COLUMNS: tuple[RowColumn, ...] = (
    _C("model_type", str, "bert", "Model family of transformers: bert, roberta, distilbert, electra"),
    _C("checkpoint", str, None, "Local checkpoint or hub name to start from; null: random initialisation"),
    _C("task", str, "classification", "Head that is trained", ("classification", "qa", "mlm")),
    _C("dataset", str, "docstrings", "docstrings (made offline from Python's own library) or glue/NAME"),
    _C("layers", int, REQUIRED, "Encoder layers (L)", minimum=1),
    _C("hidden", int, REQUIRED, "Hidden width (d)", minimum=1),
    _C("heads", int, REQUIRED, "Attention heads (h)", minimum=1),
    _C("intermediate", int, REQUIRED, "Feed-forward width (ff)", minimum=1),
    _C("seq_len", int, REQUIRED, "Padded sequence length in tokens (S)", minimum=4),
    _C("micro_batch", int, REQUIRED, "Sequences per device and forward pass (B)", minimum=1),
    _C("grad_accum", int, 1, "Forward passes per optimizer step", minimum=1),
    _C("vocab_size", int, 30522, "Vocabulary (V)", minimum=64),
    _C("max_positions", int, 512, "Position embeddings (P)", minimum=4),
    _C("num_labels", int, None, "Classes; null: as many as the dataset has", minimum=2),
    _C("precision", str, "fp32", "Arithmetic of the matrix multiplications", ("fp32", "bf16", "fp16")),
    _C("attention", str, "sdpa", "Attention kernel: sdpa is fused", ("sdpa", "eager")),
    _C("frozen_layers", int, 0, "Encoder layers frozen, from the bottom", minimum=0),
    _C("lora_rank", int, 0, "Rank of LoRA adapters; 0: full fine-tuning", minimum=0),
    _C("lora_targets", str, "query,value", "Modules that get adapters, separated by commas"),
    _C("gradient_checkpointing", bool, False, "Recompute activations in the backward pass"),
    _C("optimizer", str, "adamw", "Optimizer", ("adamw", "sgd")),
    _C("learning_rate", float, 5e-5, "Learning rate, constant", minimum=0.0),
    _C("zero_stage", int, 0, "DeepSpeed ZeRO stage; 3 is fully sharded data parallelism", (0, 1, 2, 3)),
    _C("tensor_parallel", int, 1, "Tensor-parallel degree (t)", minimum=1),
    _C("nodes", int, 1, "Nodes", minimum=1),
    _C("gpus_per_node", int, 1, "Devices on each node; on a CPU one rank each", minimum=1),
    _C("seed", int, 0, "Seed of initialisation and data order", minimum=0),
    _C("replicate", int, 1, "Number of the repetition, from 1", minimum=1),
)

BY_NAME = {column.name: column for column in ROW_COLUMNS}

# Columns that only the analysis uses: they are not part of a row's key, so changing one measures nothing again.
LABEL_COLUMNS = ("split", "label")
# Ways to write a row that are turned into columns when it is read.
SUGAR_COLUMNS = ("global_batch", "replicates")
