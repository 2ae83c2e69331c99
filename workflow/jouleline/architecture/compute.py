"""FLOP of one training step (1 MAC = 2 FLOP): only matrix products, as torch's FlopCounterMode counts them.

A trained matrix costs its forward product three times (forward, input gradient, weight gradient). A frozen matrix costs
it twice, and a matrix below the lowest trained tensor once. The textbook multiples miss one thing: what is before the
lowest trained tensor needs no gradient.
"""

from types import SimpleNamespace

import numpy as np

from jouleline.architecture.parameters import Matrix, embedding_width, widths
from jouleline.schemas.families import QKV

_ATTENTION = (*QKV, "attention_output")


def forward_flop(c: SimpleNamespace) -> SimpleNamespace:
    """Forward FLOP of one sequence by part.

    matrices: of one layer, by matrix. scores: one of a layer's two attention products, all S x S. embedding: projection
    of width e or of patches. head_in, head_out: first and last matrix of the head. A matrix costs 2 S d_in d_out, a
    product of the attention 2 S^2 h a. Head: classification 2d^2 + 2dc, of an image 2dc, QA 4Sd, MLM S (2de + 2eV), CLM
    2SeV.
    """
    d, s, e = c.hidden, c.seq_len, embedding_width(c)
    head_in = {"classification": 2 * d * d, "mlm": 2 * s * d * e}.get(c.task, 0.0 * d)
    vocabulary = 2 * s * e * c.vocab_size
    head_out = {"classification": 2 * d * c.num_labels, "qa": 4 * s * d, "mlm": vocabulary, "clm": vocabulary}
    patches = c.family.patches
    return SimpleNamespace(
        matrices={matrix: 2 * s * (d_in * d_out) for matrix, (d_in, d_out) in widths(c).items()},
        scores=2 * s * s * c.query_width,
        embedding=2 * (s - 1) * d * 3 * c.patch_size**2 if patches else np.where(e != d, 2 * s * e * d, 0),
        head_in=0.0 * d if patches else head_in,
        head_out=head_out[c.task],
    )


def step_flop(c: SimpleNamespace) -> SimpleNamespace:
    """FLOP of one sequence, forward and backward.

    layers: all layers. products, attention: the part of the layers for the matrices of the attention, and for its
    scores and context over all S x S pairs. embedding, head. nominal and nominal_rest are the same by the textbook
    multiples: trained layers and head 3, frozen bottom layers 1; with LoRA frozen matrices 2, attention scores 3,
    adapters 3. With checkpointing 1 more for every trained layer.
    """
    f = forward_flop(c)
    parts = _parts(c, f)
    layer = sum(part.forward for part in parts)
    inner = sum(part.inner for part in parts)
    adapted = sum(_adapter_flop(c).values())
    recomputed = (c.gradient_checkpointing > 0) * c.open_layers * (layer + adapted)
    spared = (c.gradient_checkpointing > 0) * _spared(c, f)
    layers = sum(_over_layers(c, part) for part in parts) - spared
    # The lowest tensor of all is the projection of the patches. It has no input gradient.
    embedding = np.where(c.is_full, 2 if c.family.patches else 3, 1) * f.embedding
    return SimpleNamespace(
        layers=layers,
        products=sum(_over_layers(c, part) for part in parts if part.name in _ATTENTION),
        attention=sum(_over_layers(c, part) for part in parts if part.name == "scores"),
        embedding=embedding,
        head=_head(c, f),
        nominal=c.frozen_layers * layer + c.open_layers * inner + recomputed,
        nominal_rest=3 * (f.embedding + f.head_in + f.head_out),
    )


def launches(c: SimpleNamespace) -> np.ndarray:
    """Matrix products started for one micro-batch, forward and backward (by the nominal multiples)."""
    matrices = len(c.family.matrices)
    forward = matrices + 2  # the two are scores and context
    adapted = sum(c.adapters.values())
    trained = np.where(c.lora_rank > 0, matrices * 2 + 2 * 3 + 6 * adapted, 3 * forward)
    recomputed = (c.gradient_checkpointing > 0) * (forward + 2 * adapted - c.family.stops_early)
    head = 3 * (2 if c.task in ("classification", "mlm") and not c.family.patches else 1)
    return c.frozen_layers * forward + c.open_layers * (trained + recomputed) + head


def _over_layers(c: SimpleNamespace, part: SimpleNamespace) -> np.ndarray:
    """FLOP of a part in all layers: frozen layers run forward only, and the lowest trained layer is a special case."""
    # If something below it is frozen, the input of the lowest trained layer has no gradient.
    lowest = np.where(c.is_full, 0, np.minimum(c.open_layers, 1))
    recomputed = (c.gradient_checkpointing > 0) * (part.forward + part.adapters)
    trained = (c.open_layers - lowest) * part.inner + lowest * part.lowest
    return c.frozen_layers * part.forward + trained + c.open_layers * recomputed


def _parts(c: SimpleNamespace, f: SimpleNamespace) -> list[SimpleNamespace]:
    """One layer in parts: name, forward FLOP (without adapters), adapters (their forward FLOP), and forward and
    backward FLOP of two kinds of layer. In `inner` the layer's input needs a gradient; in `lowest`, the lowest trained
    layer, not.
    """
    lora, a = c.lora_rank > 0, c.adapters
    reached = reached_inputs(c)
    adapted = _adapter_flop(c)
    parts = []
    for matrix, (d_in, d_out) in widths(c).items():
        forward, r = f.matrices[matrix], reached[matrix]
        # A trained norm before query, key and value needs their input gradient.
        trained = 2 if matrix[0] in QKV and not c.family.pre_norm else 3
        lowest = 2 * c.seq_len * c.lora_rank * a[matrix] * (d_in * (2 + r) + 3 * d_out)
        parts.append(
            SimpleNamespace(
                name=matrix[0],
                forward=forward,
                adapters=adapted[matrix],
                inner=np.where(lora, 2 * forward + 3 * adapted[matrix], 3 * forward),
                lowest=np.where(lora, forward * (1 + r) + lowest, trained * forward),
            )
        )
    query, key, value = (next(a[matrix] for matrix in a if part in matrix) for part in QKV)
    scores = f.scores * (1 + query + key) + f.scores * (1 + np.maximum(query, key) + value)
    inner = 3 * 2 * f.scores
    lowest = np.where(lora, scores, inner)
    attention = SimpleNamespace(name="scores", forward=2 * f.scores, adapters=0, inner=inner, lowest=lowest)
    return [*parts, attention]


def reached_inputs(c: SimpleNamespace) -> dict[Matrix, np.ndarray]:
    """1 for each matrix of the lowest LoRA layer whose input needs a gradient, because an adapter is before it.

    In that layer the gradient starts at the first adapter. What is before it runs only forward.
    """
    a = c.adapters
    zero = 0.0 * c.lora_rank
    highest = {"qkv": zero, "output": zero, "up": zero}
    for matrix, carried in a.items():
        place = {**dict.fromkeys(QKV, "qkv"), "attention_output": "output"}.get(matrix[0], "up")
        if matrix[0] != "down":
            highest[place] = np.maximum(highest[place], carried)
    output = highest["qkv"]
    # A feed-forward block beside the attention (not after it) sees only the layer's input.
    up = zero if c.family.parallel else np.maximum(output, highest["output"])
    inputs = {**dict.fromkeys(QKV, zero), "attention_output": output, "gate": up, "up": up}
    inputs["down"] = np.maximum(up, highest["up"])
    return {matrix: inputs[matrix[0]] for matrix in a}


def _adapter_flop(c: SimpleNamespace) -> dict[Matrix, np.ndarray]:
    """Forward FLOP of one layer's LoRA adapters: 2 S r (d_in + d_out) each."""
    return {
        matrix: 2 * c.seq_len * c.lora_rank * c.adapters[matrix] * sum(ends)
        for matrix, ends in widths(c).items()
    }


def _spared(c: SimpleNamespace, f: SimpleNamespace) -> np.ndarray | float:
    """FLOP that recomputing all trained layers leaves out: what comes after the last tensor that is needed.

    This is a layer's last product, if nothing after it needs the output. A feed-forward block beside the attention may
    have no adapters. In the lowest LoRA layer it then has no gradient at all, and is left out too.
    """
    if not c.family.stops_early:
        return 0.0
    last = 2 * c.seq_len * c.lora_rank * c.hidden  # the second matrix of an adapter
    named = {matrix[0]: matrix for matrix in f.matrices}

    def ending(part: str) -> np.ndarray:
        return np.where(c.adapters[named[part]] > 0, last, f.matrices[named[part]])

    if not c.family.parallel:
        return c.open_layers * ending("down")
    block = [matrix for matrix in f.matrices if matrix[0] in ("gate", "up", "down")]
    bare = (c.lora_rank > 0) & (sum(c.adapters[matrix] for matrix in block) == 0)
    alone = ending("attention_output") + sum(f.matrices[matrix] for matrix in block)
    lowest = np.minimum(c.open_layers, 1)
    return (c.open_layers - lowest) * ending("down") + lowest * np.where(bare, alone, ending("down"))


def _head(c: SimpleNamespace, f: SimpleNamespace) -> np.ndarray:
    """FLOP of the head: 3x, with two exceptions. Above a fully frozen encoder there is no input gradient. A frozen
    matrix (a decoder's with LoRA, or one shared with frozen embeddings) has no weight gradient."""
    lora = c.lora_rank > 0
    # The norm after the last layer is trained, unless only adapters are trained.
    below = (c.open_layers > 0) | (c.family.pre_norm & ~lora)
    frozen = {"mlm": ~c.is_full, "clm": lora | ((c.tied > 0) & ~c.is_full)}.get(c.task, False)
    return f.head_in * (2 + below) + f.head_out * (2 + (below | (f.head_in > 0)) - frozen)
