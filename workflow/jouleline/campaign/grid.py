"""Expand a campaign's grid into runs: blocks of axes and explicit rows become rows. The content of a row makes its id.

Standard library only: this runs every time Snakemake parses the workflow.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jouleline import delimited
from jouleline.campaign import models
from jouleline.campaign.expression import evaluate
from jouleline.campaign.strategy import contradictions
from jouleline.errors import UserError
from jouleline.files import canonical_json, reading, write_json
from jouleline.schemas.row import BY_NAME, LABEL_COLUMNS, ROW_COLUMNS, SUGAR_COLUMNS

_KNOWN = frozenset(BY_NAME) | frozenset(LABEL_COLUMNS) | frozenset(SUGAR_COLUMNS)
_DEFAULTS = {c.name: None if c.required else c.default for c in ROW_COLUMNS}
MOST_RUNS = 200_000
"""More is a slip of the pen: no cluster measures them, and Snakemake would plan for an hour."""

_REQUIRED = frozenset(c.name for c in ROW_COLUMNS if c.required)


@dataclass(frozen=True)
class Run:
    """One measurement: a row, its replicate, and the labels that only the analysis reads."""

    run_id: str
    row_id: str
    row: dict[str, Any]
    key: str
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical row: run.json must carry the same."""
        return hashlib.sha256(self.key.encode()).hexdigest()


def complete_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the frozen defaults: the full flat row, every column of ROW_COLUMNS."""
    return {name: row.get(name, default) for name, default in _DEFAULTS.items()}


def row_key(row: Mapping[str, Any]) -> str:
    """Canonical JSON of a row, without the columns at their frozen default: equal rows give equal keys."""
    return canonical_json(
        {n: row[n] for n, default in _DEFAULTS.items() if n in _REQUIRED or row[n] != default}
    )


def row_id(row: Mapping[str, Any]) -> str:
    """A readable slug and a short hash of the row's content, without its replicate."""
    content = row_key({**row, "replicate": 1})
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    strategy = f"z{row['zero_stage']}-tp{row['tensor_parallel']}-N{row['nodes']}x{row['gpus_per_node']}"
    shape = f"L{row['layers']}-d{row['hidden']}-h{row['heads']}-f{row['intermediate']}"
    return f"{row['model_type']}-{shape}-s{row['seq_len']}-b{row['micro_batch']}-{row['precision']}-{strategy}-{digest}"


def make_run(row: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> Run:
    """The run of a complete row."""
    identity = row_id(row)
    return Run(f"{identity}-r{row['replicate']}", identity, dict(row), row_key(row), dict(labels or {}))


def expand(grid: Mapping[str, Any], device: str, gpus_per_node: int | None, root: Path = Path()) -> list[Run]:
    """Expand a grid into runs, in the order written. The same row given twice is one run with the labels of both.

    `device` is auto, cpu or cuda. `gpus_per_node` is what a node has (None: unknown, not checked). A relative `table`
    path starts at `root`. Raises one UserError that lists every bad row, one line each: where it stands, what is
    wrong, and the remedy.
    """
    runs: dict[str, Run] = {}
    problems: list[str] = []
    for origin, raw in _raw_rows(grid, root, problems):
        raw, disagreements = models.fill(raw, root) if "model" in raw else (raw, [])
        row, labels, replicates, found = _read_row(raw)
        found = disagreements or found
        found = found or contradictions(row, device) + _node_problems(row, gpus_per_node)
        problems += [f"{origin} ({_short(raw)}): {text}" for text in found]
        if found:
            continue
        if len(runs) + len(replicates) > MOST_RUNS:
            raise UserError(_too_many(origin))
        for replicate in replicates:
            run = make_run({**row, "replicate": replicate}, labels)
            known = runs.setdefault(run.run_id, run).labels
            wrong = [key for key in labels if known.get(key, labels[key]) != labels[key]]
            problems += [
                f"{origin} ({_short(raw)}): {key} is {labels[key]!r} here and {known[key]!r} before; give the row one"
                for key in wrong
            ]
            known |= {key: value for key, value in labels.items() if key not in wrong}
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the grid"
        raise UserError(
            "\n  ".join([f"{count}:", *problems]) if len(problems) > 1 else f"in the grid: {problems[0]}"
        )
    if not runs:
        raise UserError("the grid has no rows; give `grid.blocks`, `grid.rows` or `grid.table` at least one")
    return list(runs.values())


def _too_many(origin: str) -> str:
    return f"{origin} makes the grid larger than {MOST_RUNS} runs; take values out of the axes or lower replicates"


def _raw_rows(
    grid: Mapping[str, Any], root: Path, problems: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    defaults = grid.get("defaults", {})
    for number, block in enumerate(grid.get("blocks", [])):
        name = f"grid.blocks[{number}]" + (f" '{block['name']}'" if "name" in block else "")
        for row in _block_rows(block, defaults, name, problems, root):
            yield name, row
    for number, row in enumerate(grid.get("rows", [])):
        yield f"grid.rows[{number}]", {**defaults, **row}
    if grid.get("table"):
        path = root / grid["table"]
        for line, row in _table_rows(path):
            yield f"{path.name} line {line}", {**defaults, **row}


def _block_rows(
    block: Mapping[str, Any], defaults: Mapping[str, Any], name: str, problems: list[str], root: Path
) -> Iterator[dict[str, Any]]:
    axes: Mapping[str, list[Any]] = block.get("axes", {})
    labels = {key: block[key] for key in (*LABEL_COLUMNS, "replicates") if key in block}
    if math.prod(map(len, axes.values())) * len(block.get("cases", [{}])) > MOST_RUNS:
        raise UserError(_too_many(name))
    for rule in block.get("exclude", []):
        unknown = sorted(str(key) for key in rule if key not in _KNOWN)
        if unknown or not rule:
            what = f"unknown column '{unknown[0]}'" if unknown else "an empty rule leaves out everything"
            problems.append(f"{name}.exclude: {what}; known are {', '.join(sorted(_KNOWN))}")
            return
    for values in itertools.product(*axes.values()):
        for case in block.get("cases", [{}]):
            row = {**defaults, **labels, **block.get("set", {}), **dict(zip(axes, values)), **case}
            if "model" in row and "derived" in block:
                row, _ = models.fill(row, root)
            try:
                for column, expression in block.get("derived", {}).items():
                    row[column] = evaluate(str(expression), row)
            except UserError as error:
                problems.append(f"{name}.derived.{column} ({_short(row)}): {error}")
                return
            if not any(all(row.get(k) == v for k, v in rule.items()) for rule in block.get("exclude", [])):
                yield row


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with reading(path, "a whole table (grid.table)", "give a CSV file, or remove the key"):
        sheet = delimited.read(path)
        reader = delimited.rows(sheet)
        names = [name.strip() for name in next(reader, [])]
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise UserError(f"{path} has two columns named {twice[0]!r} (grid.table); leave one of them out")
        for fields in filter(None, reader):
            number = reader.line_num + sheet.before
            if len(fields) != len(names):
                raise delimited.ragged(path, sheet, number, len(fields), len(names))
            row = {k: _from_text(k, v) for k, v in zip(names, fields) if k and v.strip()}
            if row:
                yield number, row


def _from_text(column: str, text: str) -> Any:
    kind = BY_NAME[column].python_type if column in BY_NAME else str
    if column in ("global_batch", "replicates"):
        kind = int
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]
        return kind(text.strip())
    except (ValueError, KeyError):
        return text


def _read_row(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], Sequence[int], list[str]]:
    """(complete row, labels, replicate numbers, problems) of a row as written."""
    found = [
        f"unknown column '{key}'; known are {', '.join(sorted(_KNOWN))}" for key in raw if key not in _KNOWN
    ]
    row = complete_row(raw)
    for column in ROW_COLUMNS:
        if column.name not in raw and column.name not in _REQUIRED:
            continue  # a default is good
        value = row[column.name]
        if column.type == "float64" and type(value) in (int, str):  # YAML reads 5e-5 as text
            value = row[column.name] = _from_text(column.name, str(value))
        if column.name == "micro_batch" and value is None and "global_batch" in raw:
            continue
        if value is None and column.required:
            found.append(f"{column.name} is missing; give it in the row, the block or grid.defaults")
        elif text := column.problem(value):
            found.append(text)
    replicates = raw.get("replicates", None)
    if replicates is not None and (not isinstance(replicates, int) or replicates < 1):
        found.append(f"replicates must be a whole number from 1, not {replicates!r}")
        replicates = None
    if not found:
        models.follow(row, raw)
    if not found and "global_batch" in raw:
        found += _split_global_batch(row, raw)
    labels = {key: str(raw[key]) for key in LABEL_COLUMNS if key in raw}
    numbers = [row["replicate"]] if replicates is None else range(1, replicates + 1)
    return row, labels, numbers, found


def _split_global_batch(row: dict[str, Any], raw: Mapping[str, Any]) -> list[str]:
    """Turn `global_batch` into `micro_batch`. A problem where it cannot be divided."""
    total = raw["global_batch"]
    if not isinstance(total, int) or isinstance(total, bool) or total < 1:
        return [f"global_batch must be a whole number from 1, not {total!r}"]
    if raw.get("micro_batch") is not None:
        return ["global_batch and micro_batch are both given; leave one out"]
    devices = row["nodes"] * row["gpus_per_node"]
    parts = max(1, devices // row["tensor_parallel"]) * row["grad_accum"]
    if total % parts:
        return [
            f"global_batch {total} is not divisible by data_parallel x grad_accum = {parts}; "
            f"choose {total // parts * parts or parts} or {(total // parts + 1) * parts}"
        ]
    row["micro_batch"] = total // parts
    return []


def _node_problems(row: Mapping[str, Any], gpus_per_node: int | None) -> list[str]:
    if gpus_per_node is not None and row["gpus_per_node"] > gpus_per_node:
        return [
            f"gpus_per_node {row['gpus_per_node']} is more than the {gpus_per_node} a node has (node.gpus); "
            "use more nodes, or correct node.gpus"
        ]
    return []


def _short(row: Mapping[str, Any]) -> str:
    names = (
        "model",
        "layers",
        "hidden",
        "heads",
        "intermediate",
        "seq_len",
        "micro_batch",
        "global_batch",
        "tensor_parallel",
    )
    return " ".join(f"{name}={row[name]}" for name in names if name in row)


def order_priority(run_id: str, seed: int) -> int:
    """A number in 2^24..2^31. Runs are measured in its order, highest first: every row once, then every row again.

    Each such block is in a random order by `seed`, and rows that are added later do not change it. So the runs
    measured so far are balanced at any time.
    """
    digest = hashlib.sha256(f"{seed}:{run_id}".encode()).digest()
    block = min(int(run_id.rpartition("-r")[2]), 127)
    return (128 - block << 24) + int.from_bytes(digest[:3], "big")


def dataset_name(row: Mapping[str, Any]) -> str:
    """Name of the prepared data set of a row: the data, the vocabulary, and the checkpoint whose tokenizer it uses."""
    name = f"{row['dataset'].replace('/', '-')}-v{row['vocab_size']}"
    if row["checkpoint"] is None:
        return name
    return f"{name}-{hashlib.sha256(row['checkpoint'].encode()).hexdigest()[:8]}"


def shard_of(run_id: str, shards: int) -> int:
    """The number, below `shards`, of the job that integrates a run. It depends on the id: new rows move no old one."""
    return int(run_id.rsplit("-", 2)[1], 16) % shards


def write(runs: Iterable[Run], campaign: str, path: str | Path) -> None:
    """Write the expanded grid as JSON, by run id. This is what was asked for; every run is checked against it."""
    runs = sorted(runs, key=lambda run: run.run_id)
    rows = [{"run_id": r.run_id, "row_id": r.row_id, "digest": r.digest, "row": r.row} for r in runs]
    write_json(path, {"schema": 1, "campaign": campaign, "runs": rows})


def write_labels(runs: Iterable[Run], path: str | Path) -> None:
    """Write the labels of the runs that have any: {run_id: {split, label}}."""
    write_json(
        path, {run.run_id: run.labels for run in sorted(runs, key=lambda run: run.run_id) if run.labels}
    )
