"""Reading runs tables: columns as arrays, defaults filled, bad values refused with one line.

A table is a mapping of column name to numpy array, all of one length (`Columns`). Strings are object arrays,
integers float64 only where a null stands among them.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.files import atomic_path, canonical_json
from jouleline.schemas.runs import ENERGY_SOURCES, RUNS, STATUSES, VERDICTS

Columns = dict[str, np.ndarray]

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
"""What makes two runs the same workload: all but the device, its count, the strategy and the replicate."""

# Energies of different kinds are not comparable: another boundary, or no measurement at all.
_SOURCE_KINDS = {"nvml_counter": "nvml", "nvml_power": "nvml"}

_NUMBERS = {"int32", "int64", "float64"}


def read_runs(
    path: str | Path,
    require_energy: bool = True,
    only: Collection[str] | None = None,
    excluded: Mapping[str, str] | None = None,
) -> Columns:
    """Read a runs table (Parquet or CSV) as complete columns.

    `only` keeps the runs of these ids; `excluded` {run_id: reason} marks runs as invalid, as failed checks do.

    Columns that the table lacks get the documented defaults; columns that are none of ours are dropped.
    `require_energy` is False for configurations that are still to be run. Raises UserError, naming the file,
    for a missing required column, an unreadable file, or a value that cannot be what its column says.
    """
    raw = read_columns(path)
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


def read_columns(path: str | Path) -> Columns:
    """The columns of a Parquet or CSV file as they stand; raises UserError where it cannot be read."""
    import pyarrow as pa

    path = Path(path)
    if not path.exists():
        raise UserError(f"missing file {path}; run the rule that makes it, or correct the path")
    try:
        if path.suffix == ".csv":
            from pyarrow import csv

            table = csv.read_csv(path)
        else:
            from pyarrow import parquet

            # parquet.read_table would load pyarrow's data sets and pandas, a third of a second
            table = parquet.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is not a whole Parquet or CSV table ({reason}); give a .parquet or .csv file"
        ) from error
    return {name: _to_numpy(table[name]) for name in table.column_names}


def _to_numpy(column) -> np.ndarray:
    """Integers and floats as such (a null as NaN), everything else as objects (a null as None)."""
    import pyarrow as pa

    column = column.combine_chunks()
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        if column.null_count:  # by hand: pyarrow's own ways load pandas
            return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=float)
        return np.array(np.from_dlpack(column))
    return np.array(column.to_pylist() or [None], dtype=object)[: len(column)]


def complete(raw: Mapping[str, Iterable[Any]], where: str, require_energy: bool = True) -> Columns:
    """Fill defaults and derived columns of a raw table and cast every column to its type.

    `where` names the table in messages. Derived: data_parallel, gpus_per_node, family, run_id, samples, tokens
    (padded tokens computed), mean_power_w; each only where the table has no value of its own.
    """
    raw = {
        name: v if isinstance(v, np.ndarray) else np.array(list(v), dtype=object) for name, v in raw.items()
    }
    lengths = {len(values) for values in raw.values()}
    count = lengths.pop() if len(lengths) == 1 else 0
    if not count:
        raise UserError(f"{where} has no rows; give at least one run")
    measured = {"time_s", "energy_j", "steps"}
    needed = [c.name for c in RUNS.columns if c.required and (require_energy or c.name not in measured)]
    missing = [name for name in needed if name not in raw]
    if missing:
        raise UserError(
            f"{where} lacks the required columns {', '.join(missing)}; add them or map them with --mapping"
        )
    columns = {}
    for column in RUNS.columns:
        default = 1 if column.name == "steps" and not require_energy else column.default
        values = raw[column.name] if column.name in raw else np.array([default], dtype=object)
        columns[column.name] = np.broadcast_to(_cast(column, values, default, where), count).copy()
    _derive(columns, families=require_energy)
    _check(columns, where, require_energy, needed)
    return columns


def _cast(column, values: np.ndarray, default: Any, where: str) -> np.ndarray:
    try:
        if values.dtype.kind in "if" and column.type in _NUMBERS:
            return _as_number(values, column.type, default)
        filled = values.copy()
        filled[_is_null(values)] = default
        if column.type in _NUMBERS:
            return _as_number(
                np.array([np.nan if v is None else float(v) for v in filled]), column.type, None
            )
        if column.type == "bool":
            return np.array([str(v).lower() in {"true", "1"} for v in filled])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where}: column {column.name} is not {column.type} ({error}); correct the value"
        ) from error
    return filled.astype(object)


def _as_number(values: np.ndarray, kind: str, default: Any) -> np.ndarray:
    """Floats, or integers where the column is of integers and none is missing."""
    if values.dtype.kind == "f" and default is not None:
        values = np.where(np.isnan(values), float(default), values)
    if kind != "float64" and np.isfinite(values).all():
        if (values != np.floor(values)).any():
            raise ValueError(f"{values[values != np.floor(values)][0]} is not whole")
        return values.astype(np.int64)
    return values.astype(float)


def _is_null(values: np.ndarray) -> np.ndarray:
    """None, "" or NaN in an object array; compared element by element."""
    return (values == None) | (values == "") | (values != values)  # noqa: E711


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
    if not families:  # configurations that are still to be run need no names
        columns["run_id"] = np.where(_is_null(columns["run_id"]), "", columns["run_id"])
        return
    for name, made in (
        ("run_id", [f"row-{row + 1:05d}" for row in range(count)]),
        ("family", family_names(columns)),
    ):
        columns[name] = np.where(_is_null(columns[name]), np.array(made, dtype=object), columns[name])


def _fill(columns: Columns, name: str, values: np.ndarray) -> None:
    current = np.asarray(columns[name], dtype=float)
    columns[name] = np.where(np.isnan(current), values, current)


def family_names(columns: Mapping[str, Any]) -> list[str]:
    """The family of each row: a readable slug and a hash of workload and device.

    Replicates, device counts and parallel strategies of one workload on one device share a family, so a split by
    family never has one of them on each side.
    """
    keys = (*WORKLOAD, "device")
    rows = zip(*(np.asarray(columns[key], dtype=object).tolist() for key in keys), strict=True)
    names: dict[tuple, str] = {}
    return [
        names.get(row) or names.setdefault(row, family_name(dict(zip(keys, row, strict=True))))
        for row in rows
    ]


def family_name(row: Mapping[str, Any]) -> str:
    """The family of one row dict (see `family_names`); numbers are compared by value."""
    content = {key: _plain(row.get(key)) for key in (*WORKLOAD, "device")}
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:6]
    shape = "-".join(f"{letter}{content[key]}" for letter, key in zip("Ldhf", SHAPE, strict=True))
    return f"{content['model_type']}-{shape}-s{content['seq_len']}-b{content['micro_batch']}-{digest}"


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check(columns: Columns, where: str, require_energy: bool, needed: list[str]) -> None:
    """Refuse values that no run can have; rows that are not `ok` and valid may lack what was not measured."""
    fit = usable(columns)
    for name, allowed in (("energy_source", ENERGY_SOURCES), ("status", STATUSES), ("verdict", VERDICTS)):
        _refuse(
            columns,
            where,
            name,
            ~np.logical_or.reduce([columns[name] == one for one in allowed]),
            f"use one of {', '.join(allowed)}",
        )
    for name in needed:
        values = columns[name]
        if values.dtype == object:
            _refuse(columns, where, name, values == None, "give a value")  # noqa: E711 - elementwise
        elif name in {"time_s", "energy_j", "steps"}:
            bad = fit & ~(np.isfinite(values.astype(float)) & (values > 0))
            _refuse(
                columns, where, name, bad, "it must be positive: correct it, or mark the row verdict=invalid"
            )
        else:
            low = 0 if name == "zero_stage" else 1
            _refuse(columns, where, name, ~(values.astype(float) >= low), f"it must be at least {low}")
    _refuse(
        *(columns, where, "tensor_parallel", (columns["device_count"] % columns["tensor_parallel"]) != 0),
        "it must divide device_count",
    )
    if not require_energy:
        return
    run_ids, counts = np.unique(columns["run_id"].astype(str), return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{where}: run_id {run_ids[counts > 1][0]} stands twice; give every run its own")


def _refuse(columns: Columns, where: str, name: str, bad: np.ndarray, remedy: str) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        value = columns[name][first]
        run_id = columns["run_id"][first]
        named = f" ({run_id})" if run_id else ""
        raise UserError(f"{where}: {name} is {value} in row {first + 1}{named}; {remedy}")


def usable(columns: Columns) -> np.ndarray:
    """Rows that may be fitted: status ok and verdict not invalid. Bool [rows]."""
    return (columns["status"] == "ok") & (columns["verdict"] != "invalid")


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
    """The one kind of energy in the rows; raises UserError where kinds are mixed.

    Board energies read by NVML (counter or sampled power) may stand together; measured, estimated and outside
    energies never do, nor those of different boundaries.
    """
    names, counts = np.unique(columns["energy_source"].astype(str), return_counts=True)
    kinds = {_SOURCE_KINDS.get(name, name) for name in names}
    if len(kinds) > 1:
        listed = ", ".join(f"{name}: {count} rows" for name, count in zip(names, counts, strict=True))
        raise UserError(
            f"mixed energy sources ({listed}) cannot be fitted together; keep the rows of one source"
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
    """SHA-256 over the content of a table, independent of file format and row order."""
    names = sorted(columns)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    lines = sorted(repr(row) for row in rows)
    return hashlib.sha256("\n".join([repr(names), *lines]).encode()).hexdigest()


def write_runs(columns: Columns, path: str | Path) -> None:
    """Write complete columns as a runs table (Parquet), atomically; NaN becomes null."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = RUNS.arrow_schema()
    arrays = []
    for entry in schema:
        values = columns[entry.name]
        if values.dtype.kind == "f":
            arrays.append(pa.array(values, mask=~np.isfinite(values)).cast(entry.type))
        else:
            arrays.append(pa.array(values.tolist(), type=entry.type))
    with atomic_path(path) as temporary:
        parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")
