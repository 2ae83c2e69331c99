"""Runs tables: columns as arrays, with defaults filled in and derived columns computed.

A table is a mapping of column name to numpy array, all of one length (`Columns`). Strings are object arrays. Integers
are float64 only where a null is among them.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.files import canonical_json
from jouleline.model.table.checks import cast, check_together, check_values, is_null, texts, usable
from jouleline.model.table.files import Columns, read_columns, write_arrow
from jouleline.schemas.runs import MEASURED_BOUNDS, RUNS, SCOPE_OF_SOURCE

SHAPE = ("layers", "hidden", "heads", "intermediate")
"""What makes two runs the same architecture."""

WORKLOAD = (
    *(
        "model_type",
        *SHAPE,
        "vocab_size",
        "task",
        "seq_len",
        "micro_batch",
        "grad_accum",
        "precision",
        "attention",
    ),
    *("frozen_layers", "lora_rank", "lora_targets", "gradient_checkpointing", "optimizer"),
)
"""What makes two runs the same workload: everything except the device, its count, the strategy and the replicate."""

# Energies of different kinds are not comparable: they have another boundary, or are no measurement at all.
_SOURCE_KINDS = {"nvml_counter": "nvml", "nvml_power": "nvml"}


def read_runs(
    path: str | Path,
    require_energy: bool = True,
    only: Collection[str] | None = None,
    excluded: Mapping[str, str] | None = None,
) -> Columns:
    """Read a runs table (Parquet or CSV) as complete columns.

    `only` keeps the runs of these ids. `excluded` {run_id: reason} marks runs as invalid, as failed checks do.

    Columns that the table lacks get the documented defaults. Columns that are not ours are dropped. `require_energy` is
    False for configurations that are still to be run. Raises UserError that names the file: for a missing required
    column, an unreadable file, or a value that is not possible in its column.
    """
    raw = read_columns(path)
    if "run_id" in raw:
        raw["run_id"] = texts(raw["run_id"], f"{path}: run_id")
    if only is not None and "run_id" in raw:
        raw = take(raw, np.isin(raw["run_id"].astype(str), list(only)))
    for run_id, reason in (excluded or {}).items():
        _mark_invalid(raw, run_id, reason)
    return complete(raw, str(path), require_energy)


def _mark_invalid(raw: Columns, run_id: str, reason: str) -> None:
    count = len(raw["run_id"])
    for name, value in (("verdict", "invalid"), ("reasons", reason)):
        column = raw.setdefault(name, np.full(count, None, dtype=object))
        column[raw["run_id"] == run_id] = value


def complete(raw: Mapping[str, Iterable[Any]], where: str, require_energy: bool = True) -> Columns:
    """Fill defaults and derived columns of a raw table and cast every column to its type.

    `where` names the table in messages. These columns are derived, each only where the table has no value of its own:
    data_parallel, gpus_per_node, family, run_id, samples, tokens (padded tokens computed), mean_power_w. Without
    `require_energy` a row may have no steps. Then it has no samples and tokens either: they are NaN.
    """
    raw = {name: _as_array(values) for name, values in raw.items()}
    lengths = {len(values) for values in raw.values()}
    count = lengths.pop() if len(lengths) == 1 else 0
    if not count:
        raise UserError(f"{where} has no rows; give at least one run")
    needed = [
        c.name for c in RUNS.columns if c.required and (require_energy or c.name not in MEASURED_BOUNDS)
    ]
    missing = [name for name in needed if name not in raw]
    if missing:
        raise UserError(
            f"{where} lacks the required columns {', '.join(missing)}; add them or map them with --mapping "
            f"(it has {', '.join(map(str, raw))})"
        )
    columns = {}
    for column in RUNS.columns:
        values = raw.get(column.name, np.array([None], dtype=object))
        columns[column.name] = np.broadcast_to(cast(column, values, column.default, where), count).copy()
    check_values(columns, where, planned=not require_energy)
    _derive(columns, families=require_energy)
    check_together(columns, where, planned=not require_energy)
    return columns


def _as_array(values: Iterable[Any]) -> np.ndarray:
    """An array as it is, anything else as an array of objects. Not np.array: lists of one length would be a
    dimension."""
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind in "iuf" else values.astype(object)
    return np.fromiter(values, dtype=object)


def _derive(columns: Columns, families: bool) -> None:
    """Fill, in place, what follows from other columns, where it is null."""
    count = len(columns["device"])
    _fill(columns, "data_parallel", columns["device_count"] / columns["tensor_parallel"])
    _fill(columns, "gpus_per_node", columns["device_count"] / columns["nodes"])
    sequences = columns["micro_batch"] * columns["grad_accum"] * columns["data_parallel"] * columns["steps"]
    _fill(columns, "samples", sequences)
    _fill(columns, "tokens", columns["samples"] * columns["seq_len"])
    with np.errstate(divide="ignore", invalid="ignore"):
        _fill(columns, "mean_power_w", columns["energy_j"] / columns["time_s"])
    scopes = [SCOPE_OF_SOURCE.get(source) for source in columns["energy_source"].tolist()]
    given = columns["energy_scope"]
    columns["energy_scope"] = np.where(is_null(given), np.array(scopes, dtype=object), given)
    if not families:  # configurations that are still to be run need no names
        columns["run_id"] = np.where(is_null(columns["run_id"]), "", columns["run_id"])
        return
    for name, made in (
        ("run_id", [f"row-{row + 1:05d}" for row in range(count)]),
        ("family", family_names(columns)),
    ):
        columns[name] = np.where(is_null(columns[name]), np.array(made, dtype=object), columns[name])


def _fill(columns: Columns, name: str, values: np.ndarray) -> None:
    current = np.asarray(columns[name], dtype=float)
    columns[name] = np.where(np.isnan(current), values, current)


def family_names(columns: Mapping[str, Any]) -> list[str]:
    """The family of each row: a readable slug and a hash of workload and device.

    Replicates, device counts and parallel strategies of one workload on one device share a family. So a split by family
    never has one of them on each side.
    """
    keys = (*WORKLOAD, "device")
    rows = zip(*(np.asarray(columns[key], dtype=object).tolist() for key in keys), strict=True)
    names: dict[tuple, str] = {}
    return [
        names.get(row) or names.setdefault(row, family_name(dict(zip(keys, row, strict=True))))
        for row in rows
    ]


def family_name(row: Mapping[str, Any]) -> str:
    """The family of one row dict (see `family_names`). Numbers are compared by value."""
    content = {key: _plain(row.get(key)) for key in (*WORKLOAD, "device")}
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:6]
    shape = "-".join(f"{letter}{content[key]}" for letter, key in zip("Ldhf", SHAPE, strict=True))
    return f"{content['model_type']}-{shape}-s{content['seq_len']}-b{content['micro_batch']}-{digest}"


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def unusable(columns: Columns) -> list[dict[str, str]]:
    """The rows that are kept out of every fit, each with the reason."""
    rows = np.flatnonzero(~usable(columns))
    excluded = []
    for row in rows:
        status, verdict = columns["status"][row], columns["verdict"][row]
        codes = columns["reasons"][row] or ""
        why = f"status {status}" if status != "ok" else f"verdict {verdict}"
        excluded.append({"run_id": columns["run_id"][row], "reason": f"{why}: {codes}" if codes else why})
    return excluded


def one_source(columns: Columns) -> str:
    """The one kind of energy in the rows. Raises UserError where kinds are mixed.

    Board energies that NVML reads (counter or sampled power) may stand together. Measured, estimated and outside
    energies never do, and energies of different boundaries never do.
    """
    names, counts = np.unique(columns["energy_source"].astype(str), return_counts=True)
    kinds = {_SOURCE_KINDS.get(name, name) for name in names}
    if len(kinds) > 1:
        listed = ", ".join(f"{name}: {count} rows" for name, count in zip(names, counts, strict=True))
        raise UserError(
            f"mixed energy sources ({listed}) cannot be fitted together; keep the rows of one source"
        )
    scopes = sorted({str(scope) for scope in columns["energy_scope"].tolist() if scope is not None})
    if len(scopes) > 1:
        raise UserError(
            f"energies of different scopes ({', '.join(scopes)}) cannot be fitted together; keep the rows of one scope"
        )
    return str(names[0]) if len(names) == 1 else kinds.pop()


def require_variation(columns: Columns, where: str) -> None:
    """Refuse a table from which nothing can be learned: too few rows, one family, or a constant target."""
    count = len(columns["run_id"])
    families = len(set(columns["family"]))
    if count < MIN_ROWS:
        raise UserError(f"{where} has {count} usable rows; at least {MIN_ROWS} are needed to fit a model")
    if families < MIN_FAMILIES:
        raise UserError(
            f"{where} has {families} {'family' if families == 1 else 'families'} (workload and device); "
            f"at least {MIN_FAMILIES} are needed to hold any out: vary layers, hidden, seq_len or micro_batch"
        )
    for name in ("energy_j", "time_s"):
        if np.ptp(np.log(columns[name])) < 1e-9:
            raise UserError(
                f"{where}: {name} is constant over all {count} rows; that is not a measurement of them"
            )


MIN_ROWS = 8
MIN_FAMILIES = 4


def take(columns: Columns, rows: np.ndarray) -> Columns:
    """The given rows (mask or indices) of every column."""
    return {name: values[rows] for name, values in columns.items()}


def digest(columns: Columns) -> str:
    """SHA-256 over the content of a table. It does not depend on file format or row order."""
    names = sorted(columns)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    lines = sorted(repr(row) for row in rows)
    return hashlib.sha256("\n".join([repr(names), *lines]).encode()).hexdigest()


def write_runs(columns: Columns, path: str | Path) -> None:
    """Write complete columns atomically as a runs table (Parquet, or CSV by the ending of the name). NaN becomes
    null."""
    import pyarrow as pa

    schema = RUNS.arrow_schema()
    arrays = []
    for entry in schema:
        values = columns[entry.name]
        if values.dtype.kind == "f":
            arrays.append(pa.array(values, mask=~np.isfinite(values)).cast(entry.type))
        else:
            arrays.append(pa.array(values.tolist(), type=entry.type))
    write_arrow(pa.Table.from_arrays(arrays, schema=schema), path)
