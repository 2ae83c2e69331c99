"""Parameter tensors of a model with its head, as transformers builds it and DeepSpeed splits it.

Symbols, also in the modules beside this one: L layers, d hidden, h heads, k heads of keys and values, a head dimension,
ff intermediate, V vocabulary, P positions, T token types, e embedding width, c labels, r LoRA rank, t tensor-parallel
degree. Rows come in groups of one family and one task (`c.family`, `c.task`). Everything else is an array with one
entry per row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from jouleline.errors import UserError
from jouleline.schemas.families import PARTS
from jouleline.schemas.row import DECODER_TARGETS, DISTILBERT_TARGETS, LORA_TARGETS

# ZeRO-3 keeps tensors of at most this many elements whole on every device (DeepSpeed's
# stage3_param_persistence_threshold).
PERSISTENT_ELEMENTS = 100_000

# Names of `lora_targets` and the parts that they mean, for all families: module names, short names, and parts' names.
_TARGETS = LORA_TARGETS | DISTILBERT_TARGETS | DECODER_TARGETS | {part: (part,) for part in PARTS}

Matrix = tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """`copies` tensors of `elements` each; `trained` of them have gradients. They are split over t devices or not."""

    elements: np.ndarray
    copies: np.ndarray | int
    trained: np.ndarray | int
    split: bool = False


def adapters(c: SimpleNamespace) -> dict[Matrix, np.ndarray]:
    """For each matrix of a layer, 1.0 if it has a LoRA adapter. A matrix that fuses parts has one adapter."""
    matrices = c.family.matrices

    def carried(targets: str) -> list[float]:
        names = [name.strip() for name in targets.split(",") if name.strip()]
        unknown = [name for name in names if name not in _TARGETS]
        if unknown:
            raise UserError(f"lora_targets names {unknown[0]!r}; choose from {', '.join(_TARGETS)}")
        parts = {part for name in names for part in _TARGETS[name]}
        return [float(not parts.isdisjoint(matrix)) for matrix in matrices]

    return dict(zip(matrices, c.lora_targets.lookup(carried).T * (c.lora_rank > 0)))


def widths(c: SimpleNamespace) -> dict[Matrix, tuple[np.ndarray, np.ndarray]]:
    """(d_in, d_out) of each matrix of a layer."""
    d, ff, inner = c.hidden, c.intermediate, c.query_width
    ends = {"query": (d, inner), "key": (d, c.key_width), "value": (d, c.key_width)}
    ends |= {"attention_output": (inner, d), "gate": (d, ff), "up": (d, ff), "down": (ff, d)}
    return {
        matrix: (ends[matrix[0]][0], sum(ends[part][1] for part in matrix)) for matrix in c.family.matrices
    }


def by_columns(matrix: Matrix) -> bool:
    """Whether tensor parallelism splits a matrix by its outputs. Else it splits by inputs and sums the products."""
    return matrix[0] not in ("attention_output", "down")


def embedding_width(c: SimpleNamespace) -> np.ndarray:
    """e: the hidden width, or the family's own where embeddings are projected."""
    return c.hidden if c.family.embedding_size is None else 0 * c.hidden + c.family.embedding_size


def tensors(c: SimpleNamespace) -> Iterator[Tensor]:
    """Every parameter tensor. With frozen layers or LoRA the embeddings are frozen too. The head is trained, except a
    decoder's with LoRA. Adapters are on the layers that are not frozen. Tensor parallelism splits the matrices of the
    layers, and the biases of those that are split by columns."""
    yield from embedding_tensors(c)
    family, open_layers = c.family, c.layers - c.frozen_layers
    trained = np.where(c.lora_rank > 0, 0, open_layers)
    for matrix, (d_in, d_out) in widths(c).items():
        yield Tensor(d_in * d_out, c.layers, trained, split=True)
        if matrix[0] in family.bias:
            yield Tensor(d_out, c.layers, trained, split=by_columns(matrix))
        count = c.adapters[matrix] * open_layers
        yield Tensor(c.lora_rank * d_in, count, count)
        yield Tensor(c.lora_rank * d_out, count, count)
    per_norm = {"layer": 2, "rms": 1}[family.norm]
    yield Tensor(c.hidden, per_norm * family.norms * c.layers, per_norm * family.norms * trained)
    if family.qk_norm:
        yield Tensor(c.head_dim, 2 * c.layers, 2 * trained)
    if family.pre_norm:  # one more norm, after the last layer
        yield Tensor(c.hidden, per_norm, per_norm * (c.lora_rank == 0))
    yield from _head_tensors(c)


def embedding_tensors(c: SimpleNamespace) -> Iterator[Tensor]:
    """Tables of words (for an image: the projection of patches and the class token), positions and token types, their
    normalisation, and the projection where e != d."""
    e, full, family = embedding_width(c), c.is_full, c.family
    if family.patches:
        yield Tensor(3 * c.patch_size**2 * c.hidden, 1, full)
        yield Tensor(c.hidden, 2, 2 * full)  # the projection's bias, the class token
        yield Tensor(c.seq_len * e, 1, full)
    else:
        yield Tensor(c.vocab_size * e, 1, full, split=c.split_vocabulary)
        if family.positions is not None:
            yield Tensor((c.max_positions + family.positions) * e, 1, full)
    if family.token_types:
        yield Tensor(family.token_types * e, 1, full)
    if family.embedding_norm:
        yield Tensor(e, 2, 2 * full)
    if family.embedding_size is not None:
        projected = 1.0 * (e != c.hidden)
        yield Tensor(e * c.hidden, projected, projected * full)
        yield Tensor(c.hidden, projected, projected * full)


def _head_tensors(c: SimpleNamespace) -> Iterator[Tensor]:
    """Classification d^2+d + c(d+1), of an image c(d+1); QA 2(d+1); MLM de+e + 2e + V (the decoder's matrix is the
    embeddings'); CLM V e where it is not tied."""
    d, e = c.hidden, embedding_width(c)
    if c.task == "clm":
        untied = 1.0 - c.tied
        yield Tensor(c.vocab_size * e, untied, untied * (c.lora_rank == 0), split=c.family.split_head)
        return
    classifier = (c.num_labels * d, c.num_labels)
    sizes = {
        "classification": classifier if c.family.patches else (d * d, d, *classifier),
        "qa": (2 * d, 2 + 0 * d),
        "mlm": (d * e, e, e, e, c.vocab_size),
    }
    for elements in sizes[c.task]:
        yield Tensor(elements, 1.0, 1.0)


def shares(c: SimpleNamespace) -> SimpleNamespace:
    """The share of the busiest device under tensor parallelism: attention, rest (of the layers), head; each 1 without
    it.

    Attention is split by whole heads of keys and values. If t does not divide them, the first device has more.
    """
    t = c.tensor_parallel
    kv = c.kv_heads if c.family.own_kv else t
    return SimpleNamespace(
        attention=np.where(kv % t == 0, 1 / t, np.ceil(kv / t) / kv),
        rest=1 / t,
        head=1 / t if c.family.split_head else 1.0,
    )


def count(c: SimpleNamespace) -> SimpleNamespace:
    """Sums over `tensors`: total, trainable; the part with which one device computes (device, device_trainable); and
    the part of this that ZeRO-3 keeps whole (kept), in how many tensors (kept_tensors)."""
    sums = SimpleNamespace(total=0, trainable=0, device=0, device_trainable=0, kept=0, kept_tensors=0)
    for tensor in tensors(c):
        held = np.where(tensor.split, tensor.elements / c.tensor_parallel, tensor.elements)
        kept = tensor.copies * (held <= PERSISTENT_ELEMENTS)
        sums.total = sums.total + tensor.copies * tensor.elements
        sums.trainable = sums.trainable + tensor.trained * tensor.elements
        sums.device = sums.device + tensor.copies * held
        sums.device_trainable = sums.device_trainable + tensor.trained * held
        sums.kept = sums.kept + kept * held
        sums.kept_tensors = sums.kept_tensors + kept
    return sums
