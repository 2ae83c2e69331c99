"""Bytes that one training step moves through one device's memory.

It assumes that every operation reads its inputs and writes its outputs once, and that nothing stays in a cache. The
coefficients are those of PyTorch's own kernels, which are fused only for attention, dropout and normalisation. A test
counts them on the meta device. Symbols are as in `parameters`; every value is an array with one entry per row. Layers
with a norm after each block are BERT's, with coefficients fitted to the count. `kernels` counts all others kernel by
kernel.
"""

from types import SimpleNamespace

import numpy as np

from jouleline.architecture import kernels, lowest
from jouleline.architecture.parameters import embedding_tensors, embedding_width, widths

# Elements per token that a layer moves, in units of d: the residual stream, which is whole on every tensor-parallel
# device; the split part; and what eager attention moves in addition to a fused kernel, in units of d and of h S.
# Forward, then backward.
_WHOLE_D, _SPLIT_D, _SPLIT_FF = (21.0, 37.0), (8.0, 19.0), (4.0, 8.0)
_EAGER_D, _EAGER_SCORES = (7.5, 7.5), (10.5, 11.25)
# A frozen matrix needs no gradients of weight and bias: per output and input element.
_FROZEN_OUT, _FROZEN_IN = 2.0, 1.0
# An adapter beside a matrix, per output and input element, forward and backward.
_ADAPTER_OUT, _ADAPTER_IN = (6.0, 4.0), (1.0, 5.0)
# Embeddings per token and e, forward and backward; MLM head per token: per d and per V.
_EMBEDDING, _HEAD_D, _HEAD_VOCABULARY = (14.0, 9.5), (7.0, 12.0), (4.0, 8.0)
# Bytes per trained parameter: torch's AdamW and SGD with weight decay, which are not fused; norm and clipping of the
# gradients; casts of gradients and weights where there is a master copy in fp32.
_OPTIMIZER_BYTE = {"adamw": 84.0, "sgd": 24.0}
_CLIP_BYTE, _CAST_BYTE = 12.0, 12.0


def memory_byte(c: SimpleNamespace, p: SimpleNamespace, element_byte: np.ndarray) -> np.ndarray:
    """Memory traffic of one device in one step, byte: a (activations + weights + gradients) + optimizer.

    A trained layer runs forward and backward. A frozen layer at the bottom runs only forward, and a checkpointed layer
    forward twice. The optimizer's part is divided by n where ZeRO shards it.
    """
    tokens = c.micro_batch * c.seq_len
    moved = tokens * (_layers(c) + _ends(c)) + _weights(c, p)
    # A gradient is written once. Every further micro-batch reads and writes it again.
    gradients = p.device_trainable * (3 * c.grad_accum - 2)
    low = c.precision.lookup(lambda precision: precision != "fp32")
    per_parameter = c.optimizer.lookup(_OPTIMIZER_BYTE.__getitem__) + _CLIP_BYTE + _CAST_BYTE * low
    optimizer = per_parameter * p.device_trainable / np.where(c.zero_stage > 0, c.data_parallel, 1)
    return element_byte * (c.grad_accum * moved + gradients) + optimizer


def _layers(c: SimpleNamespace) -> np.ndarray:
    """Elements per token that all layers move."""
    if c.family.pre_norm:
        forward, backward = kernels.layer(c)
    else:
        forward, backward = (_fitted_layer(c, way) for way in (0, 1))
    adapted = [
        sum(
            c.adapters[name] * (_ADAPTER_IN[way] * d_in + _ADAPTER_OUT[way] * d_out)
            for name, (d_in, d_out) in widths(c).items()
        )
        for way in (0, 1)
    ]
    spared = sum(
        (_FROZEN_OUT if matrix[0] in c.family.bias else 1) * d_out + _FROZEN_IN * d_in
        for matrix, (d_in, d_out) in widths(c).items()
    )
    backward = backward - (c.lora_rank > 0) * spared / c.tensor_parallel + adapted[1]
    again = c.gradient_checkpointing > 0
    spared = kernels.spared(c) if c.family.stops_early else 0
    recomputed = again * (forward - spared) + (1 + again) * adapted[0]
    ended = lowest.spared(c) if c.family.pre_norm else 0
    return c.layers * forward + c.open_layers * (recomputed + backward) - ended


def _fitted_layer(c: SimpleNamespace, way: int) -> np.ndarray:
    """Elements per token of one layer without adapters, forward (0) or backward (1)."""
    eager = c.attention == "eager"
    scores = eager * (_EAGER_D[way] * c.hidden + _EAGER_SCORES[way] * c.heads * c.seq_len)
    split = _SPLIT_D[way] * c.hidden + _SPLIT_FF[way] * c.intermediate + scores
    return _WHOLE_D[way] * c.hidden + split / c.tensor_parallel


def _ends(c: SimpleNamespace) -> np.ndarray:
    """Elements per token of embeddings and head. Two heads are not counted: classification sees one token of a
    sequence, and question answering has only two columns."""
    if c.family.pre_norm:
        return sum(kernels.ends(c))
    embedding = (_EMBEDDING[0] + _EMBEDDING[1] * c.is_full) * embedding_width(c)
    head = sum(_HEAD_D) * c.hidden + sum(_HEAD_VOCABULARY) * c.vocab_size
    return embedding + (c.task == "mlm") * head


def _weights(c: SimpleNamespace, p: SimpleNamespace) -> np.ndarray:
    """Weights that one micro-batch reads: forward, again where it recomputes, and backward down to the lowest trained
    layer. Only the looked-up rows of an embedding are read. MLM reads the whole matrix in its decoder, and adds its two
    gradients."""
    matrices = p.device - sum(tensor.elements * tensor.copies for tensor in embedding_tensors(c))
    open_share = c.open_layers / c.layers
    runs = 1 + open_share * (1 + (c.gradient_checkpointing > 0))
    unread = lowest.unread_weights(c) if c.family.pre_norm else 0
    if c.task == "clm":
        return matrices * runs - unread + kernels.vocabulary(c, runs)
    decoder = (c.task == "mlm") * (2 + 4 * c.is_full) * c.vocab_size * embedding_width(c)
    return matrices * runs - unread + decoder
