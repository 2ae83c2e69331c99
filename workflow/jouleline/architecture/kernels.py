"""Elements that the kernels of a pre-norm layer read and write, from the family's description.

Each kernel reads its inputs once and writes its outputs once. The unit is one element of the row's precision, per
token. In a 16-bit model, what runs in fp32 counts twice. The counts are those of transformers 5.23 and PyTorch 2.13. A
test counts whole models on the meta device.
"""

from types import SimpleNamespace

import numpy as np

from jouleline.architecture.parameters import Matrix, embedding_width, widths
from jouleline.schemas.families import QKV

Two = tuple[np.ndarray, np.ndarray]

# A norm, per normalised element: in fp32, and with fp32 between casts from and to 16 bit. Gemma's multiplies by its
# weight before it casts back. PyTorch has one kernel for LayerNorm, and none for RMSNorm as transformers writes it.
_NORM = {"layer": ((2, 3), (2, 3)), "rms": ((7, 23), (18, 46)), "gemma": ((7, 23), (20, 52))}
# The part of it for the gradient of the weight.
_NORM_WEIGHT = {"layer": (0, 0), "rms": (4, 4), "gemma": (4, 8)}
# An activation, per element of the feed-forward width. gelu_new is eight kernels.
_ACTIVATION = {"gelu": (2, 3), "relu": (2, 3), "silu": (2, 3), "gelu_new": (18, 28)}
# Rotary positions of a whole head, for queries or keys.
_ROTARY = (10, 14)
# If only a share of the head is rotated, it is joined with the rest. Backward, two gradients are padded and added.
_JOINED = (2, 6)
# Scores per pair of tokens: added mask, scaling, softmax, reads and writes of the products; softmax in fp32 with casts;
# a cap on the scores, which is a cap on the logits too.
_SCORES, _SCORES_FP32, _CAP = (8, 9), (16, 18), (6, 7)


def layer(c: SimpleNamespace) -> Two:
    """Elements per token of one trained layer without adapters.

    With LoRA this still includes the matrices' gradients.
    """
    t, d, family = c.tensor_parallel, c.hidden, c.family
    whole, split = [norms(c, family.norms * d), _residual(c)], [attention(c), feed_forward(c)]
    for matrix, (d_in, d_out) in widths(c).items():
        bias = d_out * (matrix[0] in family.bias)
        columns = matrix[0] not in ("attention_output", "down")
        inner, outer = (d_out, d_in) if columns else (d_in, d_out)
        split.append((inner, 2 * inner + bias * columns))
        whole.append((outer, 2 * outer + bias * (not columns)))
        if len(matrix) > 1:
            split.append((0, unfusing(c, matrix) * d_out))
    if family.qk_norm:
        split.append(norms(c, c.query_width + c.key_width))
    return tuple(sum(part[way] for part in whole) + sum(part[way] for part in split) / t for way in (0, 1))


def unfusing(c: SimpleNamespace, matrix: Matrix) -> float:
    """Elements backward per output of a fused matrix, to join the gradients of its parts. For query, key and value this
    depends on the family; gate and up need one piece each."""
    return c.family.unfusing if matrix == QKV else 2


def spared(c: SimpleNamespace) -> np.ndarray:
    """Elements per token that recomputing a layer leaves out: the last product and the additions after it."""
    return c.intermediate / c.tensor_parallel + c.hidden * (4 + 3 * c.family.parallel)


def ends(c: SimpleNamespace) -> Two:
    """Elements per token of embeddings, the last norm and the head, with the logits of a language model."""
    d, e, family = c.hidden, embedding_width(c), c.family
    embedding = (2 + 3 * (family.positions is not None), (1 + (family.positions is not None)) * c.is_full)
    last = norms(c, d)
    backward = embedding[1] * e + last[1]
    if c.task != "clm":  # the head of an image sees only one token
        return embedding[0] * e + last[0], backward
    low = c.precision != "fp32"
    share = c.tensor_parallel if family.split_head else 1
    trained = 2 - (c.lora_rank > 0)  # the gradient of the head's matrix reads the input again
    cap = [part * family.capped for part in _CAP]
    logits = np.where(low, 10, 4) + cap[0], np.where(low, 15, 7) + cap[1] - (c.lora_rank > 0)
    return (
        embedding[0] * e + last[0] + e + logits[0] * c.vocab_size / share,
        backward + trained * e + logits[1] * c.vocab_size / share,
    )


def vocabulary(c: SimpleNamespace, runs: np.ndarray) -> np.ndarray:
    """Elements of the embedding and of a tied head that a micro-batch reads and writes, without the gradients. The
    matrix of an untied head is in `matrices`, which are read `runs` times; the head runs twice."""
    size = c.vocab_size * embedding_width(c)
    tied = c.tied > 0
    # Tied: read forward and backward, and two gradients are added. Untied: only the head's reads.
    return np.where(tied, size * (2 + 3 * c.is_full), size * (2 - runs))


def norms(c: SimpleNamespace, width: np.ndarray) -> Two:
    low = c.precision != "fp32"
    fp32, mixed = _NORM[c.family.norm_kernel]
    spared = (c.lora_rank > 0) * np.where(
        low, _NORM_WEIGHT[c.family.norm_kernel][1], _NORM_WEIGHT[c.family.norm_kernel][0]
    )
    return width * np.where(low, mixed[0], fp32[0]), width * (np.where(low, mixed[1], fp32[1]) - spared)


def norm_input(c: SimpleNamespace) -> np.ndarray:
    """The backward cost, per element, of the input gradient alone of a norm with a trained weight."""
    if c.family.norm == "layer":
        return 1.0 + 0 * c.hidden
    kind, low = c.family.norm_kernel, c.precision != "fp32"
    return np.where(low, _NORM[kind][1][1] - _NORM_WEIGHT[kind][1], _NORM[kind][0][1] - _NORM_WEIGHT[kind][0])


def dropouts(c: SimpleNamespace) -> Two:
    """Both dropouts of the residual stream, per element: each reads and writes, with a mask of one byte."""
    moved = 2 * (2 + c.precision.lookup(lambda name: 0.25 if name == "fp32" else 0.5)) * c.family.dropout
    return moved, moved


def _residual(c: SimpleNamespace) -> Two:
    """Two additions. Backward one sum where the stream forks, and one for each further matrix with the same input."""
    names = [matrix[0] for matrix in c.family.matrices]
    shared = sum(name in QKV for name in names) + sum(name in ("gate", "up") for name in names) - 2
    dropped = dropouts(c)
    return c.hidden * (6 + dropped[0]), c.hidden * (6 + 3 * shared + dropped[1])


def attention(c: SimpleNamespace) -> Two:
    """The fused kernel or its parts, the positions, and the scaling of the queries."""
    f, queries, keys = c.family, c.query_width, c.key_width
    both = queries + keys
    forward, backward = 2 * both, 4 * both
    if f.rotary:
        forward, backward = (one + both * more for one, more in zip((forward, backward), rotary(c)))
        forward = forward + 2 * queries * bool(f.rotary_share)  # the output is copied
    if f.scaled_queries:
        forward, backward = forward + 2 * queries, backward + 2 * queries
    eager = _eager(c)
    return tuple(
        np.where(c.attention == "eager", one + more, one) for one, more in zip((forward, backward), eager)
    )


def rotary(c: SimpleNamespace) -> tuple[float, float]:
    """Rotary positions, by element of queries and keys."""
    part, share = c.family.rotary_share, c.family.rotary_share or 1.0
    # Backward the gradients of queries and keys are copied into the layout of the products.
    forward, backward = _ROTARY[0] * share, _ROTARY[1] * share + 2 * (part != 0.25)
    return (forward + _JOINED[0], backward + _JOINED[1] - 2 * (share == 1)) if part else (forward, backward)


def scores(c: SimpleNamespace) -> Two:
    """Attention in parts, per pair of tokens and head."""
    f, low = c.family, c.precision != "fp32"
    dropout = (2 + np.where(low, 0.5, 0.25)) * f.attention_dropout
    fp32 = low & f.softmax_fp32
    return tuple(
        np.where(fp32, _SCORES_FP32[way], _SCORES[way]) + _CAP[way] * f.capped + dropout for way in (0, 1)
    )


def _eager(c: SimpleNamespace) -> Two:
    """What attention in parts moves in addition to the fused kernel: scores; copies of queries, keys, values and the
    output for the products; and keys and values repeated for every head."""
    f, queries, keys = c.family, c.query_width, c.key_width
    own, pairs = c.kv_heads < c.heads, c.heads * c.seq_len
    joined = bool(f.rotary_share)
    forward = queries * (8 - 4 * joined) - joined * (queries + keys) * ~own
    layout = 0 if f.rotary else 2 - bool(f.fused)
    backward = queries * (6 + 2 * own + layout) + keys * (2 * own - 2 + layout)
    by_pair = scores(c)
    return by_pair[0] * pairs + forward, by_pair[1] * pairs + backward


def activation(c: SimpleNamespace) -> tuple[float, float]:
    """The activation, by element of the feed-forward width."""
    return _ACTIVATION[c.family.activation]


def feed_forward(c: SimpleNamespace) -> Two:
    """The activation and the product with the gate."""
    forward, backward = activation(c)
    if c.family.gated:  # the product with the gate
        forward, backward = forward + 3, backward + 6
    return forward * c.intermediate, backward * c.intermediate
