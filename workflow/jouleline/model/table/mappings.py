"""Foreign tables as runs tables: which of their columns are which of ours.

A mapping is a JSON object:
    columns    our name -> their column
    constants  our name -> one value for every row
    lookup     our name -> {column: theirs, values: {their value: ours}, default: value for any other (optional)}
    scale      our name -> factor that their numbers are multiplied by, such as 3.6e6 from kWh to J
    sum        our name -> list of their columns, added up
    where      their column -> list of values; rows with another value are left out
    unique     their columns that make a row a copy: later copies of the same values are left out
    source     energy_source of the rows; default "outside"
"""

import difflib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.table.checks import as_numbers
from jouleline.model.table.runs import Columns, take
from jouleline.schemas.runs import ENERGY_SOURCES, RUNS

_KEYS = {"columns", "constants", "lookup", "scale", "sum", "where", "unique", "source", "about"}

BUILT_IN: dict[str, dict[str, Any]] = {
    "ecai2025": {
        "about": "Mayaki & Charpenay, ECAI 2025: forward passes of stacks of encoder layers on one GPU. The parameter "
        "counts fit ff 2048 and a vocabulary of 1000, or HF BERT (3072, 30522) where num_repeats is 3. Rows are "
        "repeated in the file: one of each is kept. All layers count as frozen: they only run forward.",
        "columns": {
            "layers": "num_layers",
            "frozen_layers": "num_layers",
            "hidden": "d_model",
            "heads": "num_attention_heads",
            "seq_len": "seq_length",
            "micro_batch": "batch_size",
            "time_s": "duration",
            "energy_j": "energy_joules",
        },
        "constants": {
            "device_count": 1,
            "tensor_parallel": 1,
            "zero_stage": 0,
            "precision": "fp32",
            "attention": "eager",
            "model_type": "bert",
            "task": "mlm",
            "steps": 1,
        },
        "lookup": {
            "device": {
                "column": "source",
                "values": {"a100": "NVIDIA A100-SXM4-80GB", "grid": "GPU of 11.34 TFLOP/s"},
            },
            "intermediate": {"column": "num_repeats", "values": {"3": 3072}, "default": 2048},
            "vocab_size": {"column": "num_repeats", "values": {"3": 30522}, "default": 1000},
        },
        "unique": [
            *("params", "seq_length", "batch_size", "num_layers", "d_model", "num_attention_heads"),
            *("model", "source", "duration", "energy_joules"),
        ],
    },
    "mlperf_llama2_lora": {
        "about": "MLPerf Training power results: Llama-2-70B with LoRA on H100 nodes of one submitter, wall power of "
        "the nodes. The shape is that of the model; its gated feed-forward block and grouped attention are not in the "
        "proxies, so only ratios between device counts mean something.",
        "columns": {
            "device_count": "gpus",
            "nodes": "nodes_logged",
            "samples": "samples",
            "time_s": "T",
            "energy_j": "E_node_J",
        },
        "constants": {
            "device": "NVIDIA H100-SXM5-80GB",
            "tensor_parallel": 8,
            "gpus_per_node": 8,
            "zero_stage": 0,
            "layers": 80,
            "hidden": 8192,
            "heads": 64,
            "intermediate": 28672,
            "vocab_size": 32000,
            "seq_len": 8192,
            "micro_batch": 1,
            "lora_rank": 16,
            "precision": "bf16",
            "model_type": "bert",
            "steps": 1,
        },
        "where": {"repo": ["v4.0"], "base": ["smc-ac-power"], "bench": ["llama2_70b_lora"]},
    },
}


def convert(foreign: Columns, mapping: Mapping[str, Any], where: str) -> Columns:
    """The foreign columns under our names, ready for `table.complete`.

    Raises UserError, naming the table, for a mapping that is none (see `require_mapping`), a column that the table
    lacks, a value that is no number where one is asked for, or a mapping without rows.
    """
    require_mapping(mapping)
    _require_columns(foreign, mapping, where)
    kept = take(foreign, _wanted(foreign, mapping))
    count = len(next(iter(kept.values())))
    if not count:
        raise UserError(f"{where}: no row passes the mapping's `where`; correct its values")
    ours: Columns = {name: kept[theirs].copy() for name, theirs in mapping.get("columns", {}).items()}
    for name, value in mapping.get("constants", {}).items():
        ours[name] = np.full(count, value, dtype=object)
    for name, parts in mapping.get("sum", {}).items():
        ours[name] = sum(as_numbers(kept[part], f"{where}: {part}") for part in parts)
    for name, how in mapping.get("lookup", {}).items():
        ours[name] = _looked_up(kept[how["column"]], how, where)
    for name, factor in mapping.get("scale", {}).items():
        ours[name] = as_numbers(ours[name], f"{where}: {name}") * factor
    if "energy_source" not in ours:
        ours["energy_source"] = np.full(count, mapping.get("source", "outside"), dtype=object)
    return ours


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _is_factor(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_name, value))


def _is_scalars(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_scalar, value))


def _is_lookup(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and {"column", "values"} <= set(value) <= {"column", "values", "default"}
        and _is_name(value["column"])
        and isinstance(value["values"], Mapping)
        and all(map(_is_scalar, value["values"].values()))
        and _is_scalar(value.get("default", ""))
    )


_OBJECTS = {
    "columns": (_is_name, "the name of one of their columns"),
    "constants": (_is_scalar, "one text, number or truth value"),
    "lookup": (_is_lookup, 'an object {"column": name, "values": {theirs: ours}} with or without "default"'),
    "scale": (_is_factor, "a positive number"),
    "sum": (_is_names, "a list of names of their columns"),
    "where": (_is_scalars, "a list of values to keep"),
}
"""What a mapping's objects may hold under every name."""

_FILLS = ("columns", "constants", "sum", "lookup")


def require_mapping(mapping: Any) -> None:
    """Raise UserError for what is no mapping, whatever table it is for: the first wrong key, and what it should be."""
    if not isinstance(mapping, Mapping):
        raise UserError("the mapping is no JSON object; see docs/model.md")
    unknown = set(mapping) - _KEYS
    if unknown:
        raise UserError(f"the mapping has the key {sorted(unknown)[0]}; keys are {', '.join(sorted(_KEYS))}")
    for key, (fits, wanted) in _OBJECTS.items():
        entries = mapping.get(key, {})
        if not isinstance(entries, Mapping):
            raise UserError(f"the mapping's {key} is no object; give {{name: ...}}, each {wanted}")
        for name, value in entries.items():
            if not fits(value):
                raise UserError(f"the mapping's {key}.{name} is {json.dumps(value)}; give {wanted}")
    if "unique" in mapping and not _is_names(mapping["unique"]):
        raise UserError("the mapping's unique is no list of names of their columns; correct it")
    if mapping.get("source", ENERGY_SOURCES[0]) not in ENERGY_SOURCES:
        raise UserError(f"the mapping's source is none; use one of {', '.join(ENERGY_SOURCES)}")
    _require_fills(mapping)


def _require_fills(mapping: Mapping[str, Any]) -> None:
    """Every column is ours, and filled once."""
    filled = [name for key in _FILLS for name in mapping.get(key, {})]
    filled += ["energy_source"] if "source" in mapping else []
    scaled = list(mapping.get("scale", {}))
    wrong = [name for name in (*filled, *scaled) if name not in RUNS.names]
    if wrong:
        near = (
            ", ".join(difflib.get_close_matches(wrong[0], RUNS.names, n=3, cutoff=0.4)) or "energy_j, time_s"
        )
        raise UserError(
            f"the mapping fills {wrong[0]}, which is no column of the runs table; near are {near}"
        )
    twice = [name for name, count in Counter(filled).items() if count > 1]
    if twice:
        raise UserError(f"the mapping fills {twice[0]} twice; keep one of them")
    empty = [name for name in scaled if name not in filled]
    if empty:
        raise UserError(f"the mapping scales {empty[0]}, which it does not fill; add it to `columns`")


def _require_columns(foreign: Columns, mapping: Mapping[str, Any], where: str) -> None:
    theirs = {*mapping.get("columns", {}).values(), *mapping.get("where", {}), *mapping.get("unique", [])}
    theirs |= {how["column"] for how in mapping.get("lookup", {}).values()}
    theirs |= {part for parts in mapping.get("sum", {}).values() for part in parts}
    missing = sorted(theirs - set(foreign))
    if missing:
        raise UserError(
            f"{where} has no column {missing[0]}, which the mapping names; it has {', '.join(foreign)}"
        )


def _wanted(foreign: Columns, mapping: Mapping[str, Any]) -> np.ndarray:
    count = len(next(iter(foreign.values())))
    wanted = np.ones(count, dtype=bool)
    for name, values in mapping.get("where", {}).items():
        allowed = {_comparable(value) for value in values}
        wanted &= np.array([_comparable(value) in allowed for value in foreign[name].tolist()], dtype=bool)
    if mapping.get("unique"):
        seen: set[tuple] = set()
        # as text: a NaN equals itself, and a list can be looked up
        rows = zip(*(map(repr, foreign[name].tolist()) for name in mapping["unique"]), strict=True)
        wanted &= np.array([not (row in seen or seen.add(row)) for row in rows], dtype=bool)
    return wanted


def _comparable(value: Any) -> str:
    """A value as what it is compared by: 3 is 3.0, as a column of whole numbers with an empty cell is read."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def _looked_up(values: np.ndarray, how: Mapping[str, Any], where: str) -> np.ndarray:
    known = how["values"]
    if values.dtype.kind in "iuf":  # keys of a JSON object are text
        known = {_comparable(_number(key)): value for key, value in known.items()}
    found = [known.get(_comparable(value), how.get("default")) for value in values.tolist()]
    if None in found:
        value = values.tolist()[found.index(None)]
        raise UserError(
            f"{where}: the mapping's lookup of {how['column']} has no value for {value!r}; add it or a default"
        )
    return np.array(found, dtype=object)


def _number(key: str) -> float | str:
    """A text as the number that it says, any other as it stands."""
    try:
        return float(key)
    except ValueError:
        return key
