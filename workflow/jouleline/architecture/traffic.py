"""Bytes that one training step sends between devices."""

from types import SimpleNamespace

import numpy as np

from jouleline.architecture.parameters import by_columns, embedding_width

# ZeRO-3 fetches weights in advance, in portions of this many elements (stage3_prefetch_bucket_size).
PREFETCH_ELEMENTS = 50_000_000
# It keeps weights from forward to backward while at most this many elements are used in between and are live
# (stage3_max_reuse_distance, stage3_max_live_parameters).
REUSE_ELEMENTS = 1_000_000_000


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
    ZeRO-3   r b (a P_train + a g P_split + P_kept)
    where a ZeRO-3 micro-batch reduce-scatters the gradients and gathers the split weights P_split g times (see
    `gathers`), and P_kept, tensors of at most 1e5 elements, are gathered one by one after the step. One more call of
    a few bytes agrees on the gradient norm. Only the ZeRO-3 traffic of the micro-batches overlaps with computing; the
    rest is blocking.
    """
    b, n, a, stage = element_byte(c), c.data_parallel, c.grad_accum, c.zero_stage
    split = (p.device - p.kept) * gathers(c, p)
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


def gathers(c: SimpleNamespace, p: SimpleNamespace) -> np.ndarray:
    """How often a ZeRO-3 micro-batch gathers the split weights. Once, if they stay from forward to backward.

    The weights of a larger model are released and gathered again, except embeddings that no head shares, and what is
    still there when the backward pass begins. Fitted to gathers counted with R = 0.25 P to 2 P. The error is at most
    0.16.
    """
    looked_up = 0 if c.family.patches else c.vocab_size * embedding_width(c) / p.device
    once = looked_up * (1 - c.tied * (c.task in ("mlm", "clm")))
    return 1 + np.maximum(0, 1 - once - 0.75 * REUSE_ELEMENTS / p.device)


def tensor_parallel_traffic(c: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """(bytes sent, collectives) of one device and step for tensor parallelism, r_t = (t-1)/t.

    They are all-reduces of B x S x d (2 r_t b B S d bytes each), and what a split head adds. Two per layer forward,
    after attention and feed-forward. Backward one per matrix that is split by columns, because DeepSpeed reduces their
    input gradients separately. A frozen layer has only the forward ones. In the lowest trained layer above frozen ones,
    query, key and value need none, unless a trained norm is before them. A checkpointed layer has one more, or two if
    the recomputation does not stop before the second. None overlaps with computing.
    """
    t, f = c.tensor_parallel, c.family
    columns = [matrix for matrix in f.matrices if by_columns(matrix)]
    into_attention = 0 if f.pre_norm else sum(matrix[0] != "up" for matrix in columns)
    above_frozen = np.maximum(len(columns) * c.open_layers - into_attention, 0)
    backward = np.where(c.is_full, len(columns) * c.layers, above_frozen)
    recomputed = (2 - f.stops_early) * c.open_layers * (c.gradient_checkpointing > 0)
    b, rows = element_byte(c), c.micro_batch * c.seq_len
    ends, small_calls, small_byte = _split_head_traffic(c, b)
    # Every device adds its part to the gradients of the norms that all heads share.
    norms = 2 * c.open_layers * f.qk_norm
    whole = np.where(t > 1, c.grad_accum * (2 * c.layers + backward + recomputed + ends), 0)
    small = np.where(t > 1, c.grad_accum * (small_calls + norms), 0)
    sent = whole * 2 * (t - 1) / t * b * c.micro_batch * c.seq_len * c.hidden
    other = c.grad_accum * (t - 1) / t * (rows * small_byte + 2 * norms * b * c.head_dim)
    return sent + np.where(t > 1, other, 0), whole + small


def _split_head_traffic(c: SimpleNamespace, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a split head adds to one micro-batch: all-reduces of B x S x d, other calls, their ring bytes per token and
    (t-1)/t.

    Tied: the embeddings are split too and reduced forward, and the loss is reduced in three pieces of fp32 (its
    maximum, its label and its sum) of all positions except the last. Untied: the logits are gathered. The input
    gradient of the head is reduced in both cases.
    """
    if not c.family.split_head:
        return 0, 0, 0.0
    pieces = 3 * 2 * 4 * (c.seq_len - 1) / c.seq_len
    tied = c.tied > 0
    return 1 + tied, np.where(tied, 3, 1), np.where(tied, pieces, b * c.vocab_size)
