"""Raw configurations as a matrix, for the models that use no physics."""

from typing import Any

import numpy as np

from jouleline.model.features import CATEGORIES, Data

_SIZES = (
    *("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch", "grad_accum", "vocab_size"),
    *("frozen_layers", "lora_rank", "device_count", "tensor_parallel", "nodes"),
)


def encoder(data: Data, rows: np.ndarray) -> dict[str, Any]:
    """What turns raw configurations into standardised columns. Only the training rows (mask) determine it.

    Sizes enter as log(1 + size). Columns that do not vary over the training rows are left out.
    """
    sizes = _sizes(data)[rows]
    spread = sizes.std(axis=0)
    kept = np.flatnonzero(spread > 1e-9)
    labels = {name: data.labels(name) for name in CATEGORIES}
    levels = {
        name: sorted(values[code] for code in np.unique(index[rows]))
        for name, (values, index) in labels.items()
    }
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
    for name, levels in how["levels"].items():
        values, index = data.labels(name)
        known &= np.array([value in levels for value in values])[index]
        if len(levels) > 1:
            indicators += [
                np.array([value == level for value in values], dtype=float)[index] for level in levels
            ]
    return np.column_stack([sizes, *indicators]) if indicators else sizes, known


def _sizes(data: Data) -> np.ndarray:
    if "sizes" not in data.memo:
        data.memo["sizes"] = np.log1p(np.column_stack([data.columns[name].astype(float) for name in _SIZES]))
    return data.memo["sizes"]
