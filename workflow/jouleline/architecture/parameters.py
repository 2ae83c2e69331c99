"""Parameter counts of an encoder with a head, as transformers builds it.

Symbols, here and in the modules beside: L layers, d hidden, ff intermediate, V vocabulary, P positions, T
token types, e embedding width, c labels, r LoRA rank. Everything is an array with one entry per row.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from jouleline.errors import UserError


@dataclass(frozen=True)
class Family:
    """What sets a model family apart from BERT: token types, embedding width, position offset."""

    token_types: int
    embedding_size: int | None = None  # None: as wide as the encoder
    extra_positions: int = 0


FAMILIES = {
    "bert": Family(token_types=2),
    "roberta": Family(token_types=1, extra_positions=2),  # positions count from the padding id + 1
    "distilbert": Family(token_types=0),
    "electra": Family(token_types=2, embedding_size=128),
}

# Matrices of one layer: (d_in, d_out) in units of "d" and "f".
ROLES = {"query": "dd", "key": "dd", "value": "dd", "output": "dd", "up": "df", "down": "fd"}
_TARGETS = {
    "query": ("query",),
    "q_lin": ("query",),
    "key": ("key",),
    "k_lin": ("key",),
    "value": ("value",),
    "v_lin": ("value",),
    "attention.output.dense": ("output",),
    "out_lin": ("output",),
    "intermediate.dense": ("up",),
    "lin1": ("up",),
    "output.dense": ("output", "down"),  # a suffix that both modules have
    "lin2": ("down",),
}


def family(model_type: str) -> Family:
    """The Family of a model type; raises UserError for one that has no formula."""
    if model_type not in FAMILIES:
        raise UserError(
            f"model_type {model_type!r} has no closed formula (there are {', '.join(FAMILIES)}); "
            "count it with architecture.flops_from_counter"
        )
    return FAMILIES[model_type]


def lora_roles(targets: str) -> tuple[float, ...]:
    """1.0 for each of ROLES that carries an adapter under the comma-separated module names `targets`."""
    names = [name.strip() for name in targets.split(",") if name.strip()]
    for name in names:
        if name not in _TARGETS:
            raise UserError(f"lora_targets names {name!r}; use some of {', '.join(_TARGETS)}")
    carried = {role for name in names for role in _TARGETS[name]}
    return tuple(float(role in carried) for role in ROLES)


def widths(c: SimpleNamespace) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(d_in, d_out) of each of ROLES."""
    unit = {"d": c.hidden, "f": c.intermediate}
    return {role: (unit[shape[0]], unit[shape[1]]) for role, shape in ROLES.items()}


def embedding_width(c: SimpleNamespace) -> np.ndarray:
    """e: the hidden width, or the family's own where embeddings are projected."""
    own = c.model_type.lookup(lambda name: family(name).embedding_size or np.nan)
    return np.where(np.isnan(own), c.hidden, own)


def count(c: SimpleNamespace) -> SimpleNamespace:
    """Parameters by part: embeddings, layer (one), head; total; trainable; trainable_layers (all layers).

    embeddings (V+P+T)e + 2e (+ ed + d where e != d); layer 4d^2+4d + 2d + 2 d ff + ff + d + 2d;
    head: classification d^2+d + c(d+1), QA 2(d+1), MLM de+e + 2e + V (the decoder shares its
    matrix with the embeddings). With frozen layers or LoRA the embeddings are frozen too; adapters sit on the
    layers that are not frozen and add r (d_in + d_out) per target.
    """
    d, ff, e = c.hidden, c.intermediate, embedding_width(c)
    positions = c.max_positions + c.model_type.lookup(lambda name: family(name).extra_positions)
    types = c.model_type.lookup(lambda name: family(name).token_types)
    embeddings = (c.vocab_size + positions + types) * e + 2 * e + np.where(e != d, e * d + d, 0)
    layer = 4 * d * d + 4 * d + 2 * d + 2 * d * ff + ff + d + 2 * d
    head = np.select(
        [c.task == "classification", c.task == "qa"],
        [d * d + d + c.num_labels * (d + 1), 2 * (d + 1)],
        d * e + e + 2 * e + c.vocab_size,
    )
    open_layers = c.layers - c.frozen_layers
    adapter = sum(c.roles[role] * c.lora_rank * sum(shape) for role, shape in widths(c).items())
    lora = c.lora_rank > 0
    trainable_layers = open_layers * np.where(lora, adapter, layer)
    return SimpleNamespace(
        embeddings=embeddings,
        layer=layer,
        head=head,
        total=embeddings + c.layers * layer + head + np.where(lora, open_layers * adapter, 0),
        trainable_layers=trainable_layers,
        trainable=np.where(lora | (c.frozen_layers > 0), 0, embeddings) + trainable_layers + head,
    )
