"""Elements that the lowest trained layer of a pre-norm model does not move backward, because nothing below is trained.

Units and coefficients are those of `kernels`. With LoRA the gradient ends at the layer's first adapter. Above frozen
layers it ends at the norm, where only the weight gets a gradient.
"""

from types import SimpleNamespace

import numpy as np

from jouleline.architecture import kernels
from jouleline.architecture.compute import reached_inputs
from jouleline.architecture.parameters import widths
from jouleline.schemas.families import QKV

# The input gradient of an adapter is written, and added to another one.
_ADAPTER_INPUT = 4.0
# Two tensors become one: where the residual stream forks, and in a product's gradient.
_SUM = 3.0


def spared(c: SimpleNamespace) -> np.ndarray:
    """Elements per token, backward. 0 where everything or nothing is trained."""
    lowest = np.where(c.is_full, 0, np.minimum(c.open_layers, 1))
    return lowest * np.where(c.lora_rank > 0, _under_adapters(c), _above_frozen(c))


def unread_weights(c: SimpleNamespace) -> np.ndarray:
    """Elements of the matrices that the lowest layer of adapters does not read backward."""
    reached = reached_inputs(c)
    sizes = ((1 - reached[matrix]) * d_in * d_out for matrix, (d_in, d_out) in widths(c).items())
    return (c.lora_rank > 0) * np.minimum(c.open_layers, 1) * sum(sizes)


def _above_frozen(c: SimpleNamespace) -> np.ndarray:
    """The input gradient at the layer's input: of the norm (two, if the block is beside the attention) and the sum."""
    inputs = 2 if c.family.parallel else 1
    return inputs * c.hidden * (_SUM + kernels.norm_input(c))


def _under_adapters(c: SimpleNamespace) -> np.ndarray:
    """Everything before the first adapter.

    Adapters and tensor parallelism exclude each other, so nothing is divided.
    """
    f, d, reached = c.family, c.hidden, reached_inputs(c)
    carried = {part: value for matrix, value in c.adapters.items() for part in matrix}
    qkv = np.maximum.reduce([carried[part] for part in QKV])
    into = {part: value for matrix, value in reached.items() for part in matrix}
    norm = kernels.norms(c, d)[1]
    named = [matrix[0] for matrix in f.matrices]
    columns = [sum(name in names for name in named) for names in (QKV, ("gate", "up"))]
    _, dropout = kernels.dropouts(c)
    at_input = norm + d * _SUM * columns[0]
    before_feed_forward = norm * (f.norms // 2) + d * (_SUM * columns[1] + dropout / 2)
    return (
        at_input
        + (1 - into["up"]) * before_feed_forward
        + (1 - into["down"]) * kernels.feed_forward(c)[1]
        + (1 - into["up"]) * into["down"] * _gate(c, carried)
        + _matrices(c, reached, qkv, into["down"])
        + _attention(c, carried, qkv)
    )


def _gate(c: SimpleNamespace, carried: dict) -> np.ndarray:
    """Of a gate and what it multiplies, the one without an adapter needs no gradient.

    Nor does the gate's activation.
    """
    if not c.family.gated:
        return 0.0 * c.hidden
    return c.intermediate * (
        (1 - carried["gate"]) * (kernels.activation(c)[1] + _SUM) + (1 - carried["up"]) * _SUM
    )


def _matrices(c: SimpleNamespace, reached: dict, qkv: np.ndarray, down: np.ndarray) -> np.ndarray:
    total = 0.0 * c.hidden
    for matrix, (d_in, d_out) in widths(c).items():
        total = total + (1 - reached[matrix]) * (d_out + d_in * (1 + _ADAPTER_INPUT * c.adapters[matrix]))
        if len(matrix) > 1:  # the gradients of its parts are not joined
            of_attention = matrix == QKV
            total = total + (1 - (qkv if of_attention else down)) * kernels.unfusing(c, matrix) * d_out
    return total


def _attention(c: SimpleNamespace, carried: dict, qkv: np.ndarray) -> np.ndarray:
    """All of it without adapters on queries, keys or values. Else the positions and norms of those without adapters."""
    f, query, key = c.family, carried["query"], carried["key"]
    total = (1 - qkv) * kernels.attention(c)[1]
    if f.rotary:
        total = total + qkv * kernels.rotary(c)[1] * ((1 - query) * c.query_width + (1 - key) * c.key_width)
    if f.qk_norm:
        missing = (1 - query) * c.query_width + (1 - key) * c.key_width
        total = total + kernels.norms(c, 1.0)[1] * missing
    return total + qkv * _scores(c, carried)


def _scores(c: SimpleNamespace, carried: dict) -> np.ndarray:
    """Attention in parts. Each of the two gradients of a product reads or writes the scores once."""
    query, key, value = (carried[part] for part in QKV)
    either = np.maximum(query, key)
    softmax = (1 - either) * (kernels.scores(c)[1] - 1)
    products = either * (2 - query - key) + (1 - value)
    return (c.attention == "eager") * c.heads * c.seq_len * (softmax + products)
