"""FLOP of one training step (1 MAC = 2 FLOP): matrix products only, as torch's FlopCounterMode counts them.

A matrix that is trained costs its forward product three times (forward, input gradient, weight gradient), a
frozen one twice, and one below the lowest trained tensor once. The textbook multiples miss one thing: the
input of the lowest trained layer needs no gradient, so its query, key and value products cost one time less.
"""

from types import SimpleNamespace

import numpy as np

from jouleline.architecture.parameters import embedding_width, widths

# Matrix products of one layer's forward pass: query, key, value, scores, context, output, up, down.
FORWARD_LAUNCHES = 8


def forward_flop(c: SimpleNamespace) -> SimpleNamespace:
    """Forward FLOP of one sequence by part: layer (one), scores (one of a layer's two attention products),
    embedding (projection where e != d), head_in (first matrix of the head), head_out (last).

    layer: S (8 d^2 + 4 d ff) + 4 S^2 d; head: classification 2d^2 + 2dc, QA 4Sd, MLM S (2de + 2eV).
    """
    d, s, e = c.hidden, c.seq_len, embedding_width(c)
    classification, mlm = c.task == "classification", c.task == "mlm"
    return SimpleNamespace(
        layer=s * (8 * d * d + 4 * d * c.intermediate) + 4 * s * s * d,
        scores=2 * s * s * d,
        embedding=np.where(e != d, 2 * s * e * d, 0),
        head_in=np.select([classification, mlm], [2 * d * d, 2 * s * d * e], 0.0),
        head_out=np.select(
            [classification, mlm], [2 * d * c.num_labels, 2 * s * e * c.vocab_size], 4 * s * d
        ),
    )


def step_flop(c: SimpleNamespace) -> SimpleNamespace:
    """FLOP of one sequence, forward and backward: encoder (all layers), rest (embedding projection, head).

    nominal and nominal_rest are the same by the textbook multiples: trained layers and head 3, frozen bottom
    layers 1; under LoRA frozen matrices 2, attention scores 3, adapters 3. With checkpointing 1 more for
    every layer that is trained.
    """
    f = forward_flop(c)
    lora = c.lora_rank > 0
    adapted_inner, adapted_first = _adapted_layers(c, f)
    inner = np.where(lora, adapted_inner, 3 * f.layer)
    first = np.where(lora, adapted_first, 3 * f.layer - 6 * c.seq_len * c.hidden**2)
    recomputed = (c.gradient_checkpointing > 0) * c.open_layers * (f.layer + _adapter_flop(c))
    # Where something lies frozen below it, the lowest trained layer has an input without gradient.
    lowest = np.where(c.is_full, 0, np.minimum(c.open_layers, 1))
    frozen = c.frozen_layers * f.layer
    return SimpleNamespace(
        encoder=frozen + (c.open_layers - lowest) * inner + lowest * first + recomputed,
        rest=np.where(c.is_full, 3, 1) * f.embedding + _head(c, f),
        nominal=frozen + c.open_layers * inner + recomputed,
        nominal_rest=3 * (f.embedding + f.head_in + f.head_out),
    )


def launches(c: SimpleNamespace) -> np.ndarray:
    """Matrix products started for one micro-batch, forward and backward (by the nominal multiples)."""
    adapted = sum(c.adapters.values())
    trained = np.where(c.lora_rank > 0, 6 * 2 + 2 * 3 + 6 * adapted, 3 * FORWARD_LAUNCHES)
    recomputed = (c.gradient_checkpointing > 0) * (FORWARD_LAUNCHES + 2 * adapted)
    head = 3 * np.where(c.task == "qa", 1, 2)
    return c.frozen_layers * FORWARD_LAUNCHES + c.open_layers * (trained + recomputed) + head


def _adapter_flop(c: SimpleNamespace) -> np.ndarray:
    """Forward FLOP of one layer's LoRA adapters: sum of 2 S r (d_in + d_out)."""
    return sum(
        2 * c.seq_len * c.lora_rank * c.adapters[name] * sum(shape) for name, shape in widths(c).items()
    )


def _adapted_layers(c: SimpleNamespace, f: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """FLOP of a LoRA layer whose input needs a gradient, and of the lowest one, whose input needs none.

    In the lowest layer the gradient starts at the first adapter: what lies before it only runs forward.
    """
    inner = 2 * (f.layer - 2 * f.scores) + 3 * 2 * f.scores + 3 * _adapter_flop(c)
    a = c.adapters
    in_scores = np.maximum(a["query"], a["key"])
    # 1 where a matrix's input needs a gradient: an adapter lies before it.
    reached = dict.fromkeys(("query", "key", "value"), 0.0)
    reached["attention_output"] = np.maximum(in_scores, a["value"])
    reached["up"] = np.maximum(reached["attention_output"], a["attention_output"])
    reached["down"] = np.maximum(reached["up"], a["up"])
    lowest = f.scores * (1 + a["query"] + a["key"]) + f.scores * (1 + in_scores + a["value"])
    for name, (d_in, d_out) in widths(c).items():
        lowest = lowest + 2 * c.seq_len * d_in * d_out * (1 + reached[name])
        lowest = lowest + 2 * c.seq_len * c.lora_rank * a[name] * (d_in * (2 + reached[name]) + 3 * d_out)
    return inner, lowest


def _head(c: SimpleNamespace, f: SimpleNamespace) -> np.ndarray:
    """FLOP of the head: 3x, but no input gradient above a wholly frozen encoder, and no weight gradient of
    an MLM decoder whose matrix is that of frozen embeddings."""
    below = c.open_layers > 0
    tied_frozen = (c.task == "mlm") & ~c.is_full
    return f.head_in * (2 + below) + f.head_out * (2 + (below | (f.head_in > 0)) - tied_frozen)
