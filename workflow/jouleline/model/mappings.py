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

from collections.abc import Mapping
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.table import Columns, take
from jouleline.schemas.runs import RUNS

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

    Raises UserError, naming the table, for a column that it lacks, a name that is not ours, or a mapping without rows.
    """
    unknown = set(mapping) - _KEYS
    if unknown:
        raise UserError(f"the mapping has the key {sorted(unknown)[0]}; keys are {', '.join(sorted(_KEYS))}")
    _require(foreign, mapping, where)
    kept = take(foreign, _wanted(foreign, mapping))
    count = len(next(iter(kept.values())))
    if not count:
        raise UserError(f"{where}: no row passes the mapping's `where`; correct its values")
    ours: Columns = {name: kept[theirs].copy() for name, theirs in mapping.get("columns", {}).items()}
    for name, value in mapping.get("constants", {}).items():
        ours[name] = np.full(count, value, dtype=object)
    for name, parts in mapping.get("sum", {}).items():
        ours[name] = sum(kept[part].astype(float) for part in parts)
    for name, how in mapping.get("lookup", {}).items():
        ours[name] = _looked_up(kept[how["column"]], how, where)
    for name, factor in mapping.get("scale", {}).items():
        ours[name] = ours[name].astype(float) * factor
    ours["energy_source"] = np.full(count, mapping.get("source", "outside"), dtype=object)
    return ours


def _require(foreign: Columns, mapping: Mapping[str, Any], where: str) -> None:
    theirs = {*mapping.get("columns", {}).values(), *mapping.get("where", {}), *mapping.get("unique", [])}
    theirs |= {how["column"] for how in mapping.get("lookup", {}).values()}
    theirs |= {part for parts in mapping.get("sum", {}).values() for part in parts}
    missing = sorted(theirs - set(foreign))
    if missing:
        raise UserError(
            f"{where} has no column {missing[0]}, which the mapping names; it has {', '.join(foreign)}"
        )
    ours = {
        name for key in ("columns", "constants", "lookup", "scale", "sum") for name in mapping.get(key, {})
    }
    wrong = sorted(ours - set(RUNS.names))
    if wrong:
        raise UserError(
            f"the mapping fills {wrong[0]}, which is no column of the runs table; see docs/data-dictionary.md"
        )


def _wanted(foreign: Columns, mapping: Mapping[str, Any]) -> np.ndarray:
    count = len(next(iter(foreign.values())))
    wanted = np.ones(count, dtype=bool)
    for name, values in mapping.get("where", {}).items():
        wanted &= np.isin(foreign[name].astype(str), [str(value) for value in values])
    if mapping.get("unique"):
        seen: set[tuple] = set()
        rows = zip(*(foreign[name].tolist() for name in mapping["unique"]), strict=True)
        wanted &= np.array([row not in seen and not seen.add(row) for row in rows])
    return wanted


def _looked_up(values: np.ndarray, how: Mapping[str, Any], where: str) -> np.ndarray:
    found = [how["values"].get(str(value), how.get("default")) for value in values.tolist()]
    if None in found:
        value = values.tolist()[found.index(None)]
        raise UserError(
            f"{where}: the mapping's lookup of {how['column']} has no value for {value!r}; add it or a default"
        )
    return np.array(found, dtype=object)
