"""Peak memory of one rank, by part: whether a run can fit and what takes the room, before anything is queued.

The peak is at one of three moments: the loss, when all activations and the logits exist; the end of the backward pass,
when all gradients exist; or the optimizer's step, with its temporaries. The formulas follow DeepSpeed 0.19. On two
ranks they gave 0.96 to 0.98 of what was alive at once in a small Llama, ZeRO 0 to 3 in fp32 and bf16. What a GPU adds
(context, fragments, workspaces) is a stated margin that no GPU has confirmed.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from jouleline.architecture import parameters, traffic
from jouleline.architecture.columns import read_columns
from jouleline.architecture.parameters import Matrix
from jouleline.architecture.proxies import groups
from jouleline.schemas.families import QKV

MARGIN_SHARE = 0.2
CONTEXT_BYTE = 1.5e9
"""Both are guesses: what a device holds beyond tensors, as a share of these, and the CUDA context."""

# DeepSpeed's reduce_bucket_size, in elements.
BUCKET_ELEMENTS = 500_000_000

PARTS = {
    "held": "weights, master copies and optimizer state; tensor_parallel, a higher zero_stage on more devices, or LoRA",
    "activations": "activations; gradient_checkpointing, or a smaller micro_batch",
    "logits": "the logits and their gradient; a smaller micro_batch or seq_len",
    "gathered": "weights gathered from other devices; tensor_parallel",
    "gradients": "gradients; zero_stage 2 or 3 on more devices, or LoRA",
    "bucket": "DeepSpeed's bucket of gradients; zero_stage 0 for a small model",
    "optimizer": "temporaries of the optimizer; a higher zero_stage on more devices, or LoRA",
    "margin": "fragments and workspaces; whatever makes the other parts smaller",
    "context": "the CUDA context; nothing",
}
"""Each part in words, and after the semicolon what makes it smaller."""


def peak_memory(rows: Any) -> dict[str, Any]:
    """Bytes of one rank at its largest moment: PARTS by name, their sum `peak`, and `floor`.

    One row gives floats; many rows give float64 arrays, as in `proxies`. `floor` is the part that is certain: held
    state, and the logits at the loss. Only it may refuse a run. Raises UserError for a row that no model can have.
    """
    c, scalar = read_columns(rows)
    values = {name: np.zeros(len(c.layers)) for name in (*PARTS, "peak", "floor")}
    for group in groups(c):
        for name, value in _evaluate(group).items():
            values[name][group.rows] = value
    return {name: float(value[0]) if scalar else value for name, value in values.items()}


def _evaluate(c: SimpleNamespace) -> dict[str, np.ndarray]:
    p, b = parameters.count(c), traffic.element_byte(c)
    held = _held(c, p, b)
    logits = _logits(c)
    moments = [
        {"held": held, "activations": activations(c), "logits": logits} | _beside_the_loss(c, p, b),
        {"held": held} | _end_of_backward(c, p, b),
        {"held": held} | _step(c, p, b),
    ]
    sums = np.stack(
        [sum(np.broadcast_to(part, held.shape) for part in moment.values()) for moment in moments]
    )
    largest = sums.argmax(axis=0)
    values = {
        name: np.choose(largest, [0 * held + moment.get(name, 0) for moment in moments]) for name in PARTS
    }
    values["margin"] = MARGIN_SHARE * sums.max(axis=0)
    values["context"] = CONTEXT_BYTE + 0 * held
    return values | {"peak": sum(values.values()), "floor": held + logits}


def _held(c: SimpleNamespace, p: SimpleNamespace, b: np.ndarray) -> np.ndarray:
    """Weights, AdamW's two moments, and a master copy in fp32. At stage 0 the copy exists only in 16-bit runs."""
    state = np.where(c.optimizer == "adamw", 8, 0)
    trained, n = p.device_trainable, c.data_parallel
    sharded = (state + 4) * trained / n
    return np.select(
        [c.zero_stage == 0, c.zero_stage < 3],
        [b * p.device + (state + _master(b)) * trained, b * p.device + sharded],
        (b * p.device + b * trained) / n + sharded + BUCKET_ELEMENTS * b,
    )


def _master(b: np.ndarray) -> np.ndarray:
    return np.where(b == 2, 4, 0)


def _logits(c: SimpleNamespace) -> np.ndarray:
    """Three copies in fp32 of the logits of every token: the logits, their logarithms, and the gradient."""
    if c.task not in ("mlm", "clm"):
        return 0.0 * c.hidden
    return 12 * c.micro_batch * c.seq_len * c.vocab_size * parameters.shares(c).head


def _beside_the_loss(c: SimpleNamespace, p: SimpleNamespace, b: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients carried over from earlier micro-batches, and the weights that ZeRO-3 has gathered."""
    carried = np.select([c.zero_stage < 2, c.zero_stage == 2], [1, 1 / c.data_parallel], 0) * (
        c.grad_accum > 1
    )
    live = b * np.minimum(p.device, traffic.REUSE_ELEMENTS)
    return {"gradients": carried * b * p.device_trainable, "gathered": (c.zero_stage == 3) * live}


def _end_of_backward(c: SimpleNamespace, p: SimpleNamespace, b: np.ndarray) -> dict[str, np.ndarray]:
    trained, stage = p.device_trainable, c.zero_stage
    shards = np.select(
        [stage < 2, stage == 2], [1, c.data_parallel], np.inf
    )  # stage 3 always holds its gradients
    bucket = np.select([stage == 0, stage < 3], [np.minimum(trained, BUCKET_ELEMENTS), BUCKET_ELEMENTS], 0)
    one_layer = (c.gradient_checkpointing > 0) * layer_activations(c)
    return {"gradients": b * trained / shards, "bucket": b * bucket, "activations": one_layer}


def _step(c: SimpleNamespace, p: SimpleNamespace, b: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients in fp32 and AdamW's temporaries. At stage 0 one tensor after the other."""
    trained, whole = p.device_trainable, c.zero_stage == 0
    mine = trained / c.data_parallel
    updated = np.where(c.zero_stage == 3, np.minimum(mine, traffic.REUSE_ELEMENTS), mine)
    return {
        "gradients": np.where(whole, b * trained, 0),
        "optimizer": np.where(whole, _master(b) * trained, 12 * updated),
    }


def activations(c: SimpleNamespace) -> np.ndarray:
    """Bytes that the layers keep for the backward pass. Checkpointed layers keep only their inputs, and one layer is
    recomputed. Frozen layers at the bottom keep nothing."""
    one = layer_activations(c)
    inputs = traffic.element_byte(c) * c.micro_batch * c.seq_len * c.hidden
    return np.where(c.gradient_checkpointing > 0, c.open_layers * inputs + one, c.open_layers * one)


def layer_activations(c: SimpleNamespace) -> np.ndarray:
    """Bytes that one layer keeps: inputs of matrices, norms and activations, queries, keys, values, dropout's masks.

    A frozen matrix needs no input. Symbols: b bytes of an element.
    """
    f, b = c.family, traffic.element_byte(c)
    kept = {matrix: np.where(c.lora_rank > 0, carried, 1.0) for matrix, carried in c.adapters.items()}
    whole = _norm_byte(c, b) * c.hidden + f.dropout * 2 * c.hidden
    for names in (QKV, ("gate", "up")):  # these matrices share one input
        whole = whole + b * c.hidden * _any(kept, names)
    split = _attention_byte(c, b, _any(kept, ("attention_output",))) + _feed_forward_byte(
        c, b, _any(kept, ("down",))
    )
    return c.micro_batch * c.seq_len * (whole + split / c.tensor_parallel)


def _any(kept: dict[Matrix, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    return np.maximum.reduce([value for matrix, value in kept.items() if matrix[0] in names])


def _norm_byte(c: SimpleNamespace, b: np.ndarray) -> np.ndarray:
    """Bytes per d that the norms keep besides their outputs."""
    f = c.family
    if f.norm == "layer":  # two norms beside each other have the same input
        return b * (1 if f.parallel else f.norms)
    return f.norms * _rms_byte(c, b)


def _rms_byte(c: SimpleNamespace, b: np.ndarray) -> np.ndarray:
    """The input in fp32, and what a trained weight multiplies, which is in fp32 in Gemma."""
    return 4 + np.where(c.lora_rank > 0, 0, 4 if c.family.norm_kernel == "gemma" else b)


def _attention_byte(c: SimpleNamespace, b: np.ndarray, output: np.ndarray) -> np.ndarray:
    """`output`: 1 where the output matrix needs its input."""
    f, queries, keys = c.family, c.query_width, c.key_width
    kept = b * 2 * (queries + keys)  # queries, keys, values, output
    if f.qk_norm:
        kept = kept + _rms_byte(c, b) * (queries + keys)
    # In parts: the softmax, dropout's mask and result, a cap; keys and values of every head.
    softmax = np.where(f.softmax_fp32 & (b == 2), 4 + b * (not f.attention_dropout), b)
    scores = (softmax + f.capped * b + f.attention_dropout * (1 + b)) * c.heads * c.seq_len
    eager = scores + 2 * b * (queries - keys) - b * queries * (1 - output)
    # Fused: values are in the product with queries and keys, and the output is copied for its matrix.
    fused = b * (queries + keys + queries * output) if f.rotary_share else 0
    return kept + np.where(c.attention == "eager", eager, fused)


def _feed_forward_byte(c: SimpleNamespace, b: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Bytes that the activation keeps, and those of the gate's product and of the input of the last matrix."""
    f = c.family
    inside = {"gelu": 1, "relu": 0, "silu": 1, "gelu_new": 4}[f.activation] + 2 * f.gated
    last = np.maximum(down, f.activation == "relu")  # a relu keeps its output
    return b * c.intermediate * (inside + last)
