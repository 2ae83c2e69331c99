"""Bytes that one training step moves: through the device's memory, and between devices."""

from types import SimpleNamespace

import numpy as np

# ZeRO-3 fetches weights ahead in portions of this many elements (stage3_prefetch_bucket_size).
PREFETCH_ELEMENTS = 50_000_000
OPTIMIZER_BYTE = {"adamw": 28, "sgd": 12}  # fp32 read and write: weight, gradient and, for AdamW, two moments


def element_byte(c: SimpleNamespace) -> np.ndarray:
    """Bytes per element of activations, weights and gradients in the row's precision."""
    return c.precision.lookup({"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}.__getitem__)


def memory_byte(c: SimpleNamespace, p: SimpleNamespace) -> np.ndarray:
    """Memory traffic of one device in one step.

    a 3 b B S L (16 d + (8 d + 4 ff + k h S)/t)  activations; k is 0 with fused attention, 8 with eager
    + a (2 P + P_train) b + a 2 b P_train         weights and gradients that the device holds
    + 28 P_train                                  AdamW in fp32, divided by n where ZeRO shards it
    """
    b, t = element_byte(c), c.tensor_parallel
    scores = np.where(c.attention == "eager", 8, 0) * c.heads * c.seq_len
    width = 16 * c.hidden + (8 * c.hidden + 4 * c.intermediate + scores) / t
    activations = 3 * b * c.micro_batch * c.seq_len * c.layers * width
    weights = (2 * p.device + p.device_trainable) * b
    gradients = 2 * b * p.device_trainable
    optimizer = c.optimizer.lookup(OPTIMIZER_BYTE.__getitem__) * p.device_trainable
    return c.grad_accum * (activations + weights + gradients) + optimizer / np.where(
        c.zero_stage > 0, c.data_parallel, 1
    )


def data_parallel_traffic(c: SimpleNamespace, p: SimpleNamespace) -> SimpleNamespace:
    """What one device sends in one step to average gradients and to share weights: byte, calls,
    blocking_byte.

    Counted in DeepSpeed 0.19 at its defaults, as ring collectives, r = (n-1)/n over n data-parallel devices:
    ZeRO-0   2 r b P_train                       one all-reduce of the accumulated gradients
    ZeRO-1   3 r b P_train                       the same, then an all-gather of the updated weights
    ZeRO-2   (2 a + 1) r b P_train               an all-reduce in every micro-batch, then the all-gather
    ZeRO-3   r b (a P_train + a P_split + P_kept)
    where a ZeRO-3 micro-batch reduce-scatters the gradients and gathers the split weights P_split once (they
    stay from forward to backward while 2 P < 1e9), and P_kept, tensors of at most 1e5 elements, are gathered
    one by one after the step. One more call of a few bytes agrees on the gradient norm. Only the ZeRO-3
    traffic of the micro-batches overlaps with computing; the rest is blocking.
    """
    b, n, a, stage = element_byte(c), c.data_parallel, c.grad_accum, c.zero_stage
    split = p.device - p.kept
    sharded = stage == 3
    elements = np.select(
        [stage == 0, stage == 1, stage == 2],
        [2 * p.device_trainable, 3 * p.device_trainable, (2 * a + 1) * p.device_trainable],
        a * (p.device_trainable + split) + p.kept,
    )
    fetches = np.ceil(split / PREFETCH_ELEMENTS)
    calls = np.select([stage == 0, stage == 1, stage == 2], [1, 2, a + 1], a * (1 + fetches) + p.kept_tensors)
    sent = b * (n - 1) / n
    return SimpleNamespace(
        byte=sent * elements,
        calls=np.where(n > 1, calls + 1, 0),
        blocking_byte=sent * np.where(sharded, p.kept, elements),
    )


def tensor_parallel_traffic(c: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """(bytes sent, collectives) of one device and step for tensor parallelism, r_t = (t-1)/t: all-reduces of
    B x S x d, 2 r_t b B S d bytes each.

    Two per layer forward, after attention and feed-forward; four backward, since DeepSpeed reduces the input
    gradients of query, key, value and feed-forward apart. A frozen layer has the forward ones only, the
    lowest trained layer above frozen ones one backward, a checkpointed layer two more. None overlaps.
    """
    t, full = c.tensor_parallel, c.is_full
    backward = np.where(full, 4 * c.layers, np.maximum(4 * c.open_layers - 3, 0))
    recomputed = 2 * c.open_layers * (c.gradient_checkpointing > 0)
    calls = np.where(t > 1, c.grad_accum * (2 * c.layers + backward + recomputed), 0)
    return calls * 2 * (t - 1) / t * element_byte(c) * c.micro_batch * c.seq_len * c.hidden, calls
