"""Parameter tensors of an encoder with a head, as transformers builds it and DeepSpeed splits it.

Symbols, here and in the modules beside: L layers, d hidden, ff intermediate, V vocabulary, P positions, T
token types, e embedding width, c labels, r LoRA rank, t tensor-parallel degree. Everything is an array with
one entry per row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from jouleline.errors import UserError

# ZeRO-3 keeps tensors of at most this many elements whole on every device (DeepSpeed's
# stage3_param_persistence_threshold).
PERSISTENT_ELEMENTS = 100_000


@dataclass(frozen=True)
class Family:
    """What sets a model family apart from BERT: token types, embedding width, positions never reached."""

    token_types: int
    embedding_size: int | None = None  # None: as wide as the encoder
    extra_positions: int = 0


FAMILIES = {
    "bert": Family(token_types=2),
    "roberta": Family(token_types=1, extra_positions=2),  # positions count from the padding id + 1
    "distilbert": Family(token_types=0),
    "electra": Family(token_types=2, embedding_size=128),
}


_SQUARE = ("query", "key", "value", "attention_output")
MATRICES = (*_SQUARE, "up", "down")
# Matrices of a layer by the ends of their module names, as peft matches them: BERT's, then DistilBERT's own.
_MODULES = {name: (name,) for name in _SQUARE[:3]} | {
    "attention.output.dense": ("attention_output",),
    "intermediate.dense": ("up",),
    "output.dense": ("attention_output", "down"),  # the end of two names
    **{"q_lin": ("query",), "k_lin": ("key",), "v_lin": ("value",)},
    **{"out_lin": ("attention_output",), "lin1": ("up",), "lin2": ("down",)},
}


@dataclass(frozen=True)
class Tensor:
    """`copies` tensors of `elements` each, `trained` of them with gradients; split over t devices or not."""

    elements: np.ndarray
    copies: np.ndarray | int
    trained: np.ndarray | int
    split: bool = False


def family(model_type: str) -> Family:
    """The Family of a model type; raises UserError for one that has no formula."""
    if model_type not in FAMILIES:
        raise UserError(
            f"model_type {model_type!r} has no closed formula (there are {', '.join(FAMILIES)}); "
            "count it with jouleline.architecture.counter.flops_from_counter"
        )
    return FAMILIES[model_type]


def adapters(c: SimpleNamespace) -> dict[str, np.ndarray]:
    """For each of MATRICES, 1.0 where it carries a LoRA adapter."""

    def carried(targets: str) -> list[float]:
        names = [name.strip() for name in targets.split(",") if name.strip()]
        unknown = [name for name in names if name not in _MODULES]
        if unknown:
            raise UserError(f"lora_targets names {unknown[0]!r}; choose from {', '.join(_MODULES)}")
        return [float(any(matrix in _MODULES[name] for name in names)) for matrix in MATRICES]

    return dict(zip(MATRICES, c.lora_targets.lookup(carried).T * (c.lora_rank > 0)))


def widths(c: SimpleNamespace) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(d_in, d_out) of each of MATRICES."""
    d, ff = c.hidden, c.intermediate
    return dict.fromkeys(_SQUARE, (d, d)) | {"up": (d, ff), "down": (ff, d)}


def embedding_width(c: SimpleNamespace) -> np.ndarray:
    """e: the hidden width, or the family's own where embeddings are projected."""
    own = c.model_type.lookup(lambda name: family(name).embedding_size or np.nan)
    return np.where(np.isnan(own), c.hidden, own)


def tensors(c: SimpleNamespace) -> Iterator[Tensor]:
    """Every parameter tensor. With frozen layers or LoRA the embeddings are frozen too, the head never is;
    adapters sit on the layers that are not frozen. Tensor parallelism splits the matrices of the layers,
    with the biases of those that are split by columns."""
    yield from embedding_tensors(c)
    open_layers = c.layers - c.frozen_layers
    trained = np.where(c.lora_rank > 0, 0, open_layers)
    for name, (d_in, d_out) in widths(c).items():
        by_columns = name not in ("attention_output", "down")
        yield Tensor(d_in * d_out, c.layers, trained, split=True)
        yield Tensor(d_out, c.layers, trained, split=by_columns)
        count = c.adapters[name] * open_layers
        yield Tensor(c.lora_rank * d_in, count, count)
        yield Tensor(c.lora_rank * d_out, count, count)
    yield Tensor(c.hidden, 4 * c.layers, 4 * trained)  # two layer norms
    yield from _head_tensors(c)


def embedding_tensors(c: SimpleNamespace) -> Iterator[Tensor]:
    """Tables of words, positions and token types, their normalisation, and the projection where e != d."""
    e, full = embedding_width(c), c.is_full
    types = c.model_type.lookup(lambda name: family(name).token_types)
    extra = c.model_type.lookup(lambda name: family(name).extra_positions)
    projected = 1.0 * (e != c.hidden)
    yield Tensor(c.vocab_size * e, 1, full)
    yield Tensor((c.max_positions + extra) * e, 1, full)
    yield Tensor(types * e, 1.0 * (types > 0), full * (types > 0))
    yield Tensor(e, 2, 2 * full)
    yield Tensor(e * c.hidden, projected, projected * full)
    yield Tensor(c.hidden, projected, projected * full)


def _head_tensors(c: SimpleNamespace) -> Iterator[Tensor]:
    """Classification d^2+d + c(d+1); QA 2(d+1); MLM de+e + 2e + V (the decoder's matrix is the
    embeddings')."""
    d, e = c.hidden, embedding_width(c)
    heads = {
        "classification": (d * d, d, c.num_labels * d, c.num_labels),
        "qa": (2 * d, 2 + 0 * d),
        "mlm": (d * e, e, e, e, c.vocab_size),
    }
    for task, sizes in heads.items():
        here = 1.0 * (c.task == task)
        for elements in sizes:
            yield Tensor(elements, here, here)


def count(c: SimpleNamespace) -> SimpleNamespace:
    """Sums over `tensors`: total, trainable; the same of what one device computes with (device,
    device_trainable); of that what ZeRO-3 keeps whole (kept), in how many tensors (kept_tensors)."""
    sums = SimpleNamespace(total=0, trainable=0, device=0, device_trainable=0, kept=0, kept_tensors=0)
    for tensor in tensors(c):
        held = tensor.elements / c.tensor_parallel if tensor.split else tensor.elements
        kept = tensor.copies * (held <= PERSISTENT_ELEMENTS)
        sums.total = sums.total + tensor.copies * tensor.elements
        sums.trainable = sums.trainable + tensor.trained * tensor.elements
        sums.device = sums.device + tensor.copies * held
        sums.device_trainable = sums.device_trainable + tensor.trained * held
        sums.kept = sums.kept + kept * held
        sums.kept_tensors = sums.kept_tensors + kept
    return sums
