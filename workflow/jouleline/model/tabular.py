"""Raw configurations as a matrix, for the models that know no physics."""

from typing import Any

import numpy as np

from jouleline.model.features import Data

_SIZES = (
    *("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch", "grad_accum", "vocab_size"),
    *("frozen_layers", "lora_rank", "device_count", "tensor_parallel", "nodes"),
)
_CATEGORIES = ("device", "precision", "attention", "task", "model_type")


def encoder(data: Data, rows: np.ndarray) -> dict[str, Any]:
    """What turns raw configurations into standardised columns, from the training rows (mask) alone.

    Sizes enter as log(1 + size); columns that do not vary over the training rows are left out.
    """
    sizes = _sizes(data)[rows]
    spread = sizes.std(axis=0)
    kept = np.flatnonzero(spread > 1e-9)
    levels = {name: sorted(set(values[rows].tolist())) for name, values in _categories(data).items()}
    return {
        "sizes": kept.tolist(),
        "mean": sizes.mean(axis=0)[kept].tolist(),
        "spread": spread[kept].tolist(),
        "levels": levels,
    }


def encode(data: Data, how: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(columns [R, P], whether every category of the row was seen in training [R])."""
    sizes = (_sizes(data)[:, how["sizes"]] - how["mean"]) / how["spread"]
    indicators, known = [], np.ones(len(data), dtype=bool)
    categories = _categories(data)
    for name, levels in how["levels"].items():
        labels = categories[name].astype(str)
        known &= np.isin(labels, np.array(levels, dtype=str))
        if len(levels) > 1:
            indicators += [(labels == level).astype(float) for level in levels]
    return np.column_stack([sizes, *indicators]) if indicators else sizes, known


def _sizes(data: Data) -> np.ndarray:
    if "sizes" not in data.memo:
        data.memo["sizes"] = np.log1p(np.column_stack([data.columns[name].astype(float) for name in _SIZES]))
    return data.memo["sizes"]


def _categories(data: Data) -> dict[str, np.ndarray]:
    return {name: data.columns[name] for name in _CATEGORIES} | {
        "strategy": data.strategy,
        "variant": data.variant,
    }
