"""Bytes that one training step sends between devices."""

from types import SimpleNamespace

import numpy as np

# ZeRO-3 fetches weights ahead in portions of this many elements (stage3_prefetch_bucket_size).
PREFETCH_ELEMENTS = 50_000_000


def element_byte(c: SimpleNamespace) -> np.ndarray:
    """Bytes per element of activations, weights and gradients in the row's precision."""
    return c.precision.lookup({"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}.__getitem__)


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
