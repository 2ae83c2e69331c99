"""The question (the *ask*): a model's shape, the work, the devices that may be used, and the limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jouleline.campaign import models
from jouleline.campaign.config import read_yaml
from jouleline.errors import UserError
from jouleline.schemas.row import ROW_COLUMNS

CHOSEN = (
    *("nodes", "gpus_per_node", "tensor_parallel", "zero_stage", "micro_batch", "grad_accum"),
    "gradient_checkpointing",
)
"""Columns of a row that a candidate decides; an ask that names one of them fixes it."""

WORK = ("tokens", "samples", "steps")
KNOWN = ("node_link_gb_s",)
"""Of the machine what a data sheet does not show: GB/s (10^9 bytes) that a node sends to other nodes."""
LIMITS = ("deadline_h", "budget_kwh", "budget_cost", "budget_kgco2", "memory_gib")
_ROW = {column.name for column in ROW_COLUMNS}
_SHAPE = ("layers", "hidden", "heads", "intermediate", "seq_len")
_OWN = ("name", "model", "epochs", "device", "devices", "devices_per_node", "global_batch")
_LIMIT_WORDS = {
    "deadline_h": "within {} h",
    "budget_kwh": "within {} kWh",
    "budget_cost": "for at most {} in money",
    "budget_kgco2": "within {} kg CO2e",
    "memory_gib": "{} GiB of memory each",
}
GLOBAL_BATCH = 64
"""Sequences per optimizer step of an ask that does not say it."""
SEQ_LEN = 2048
"""Tokens of a sequence where an ask names a model and no length; the model's most positions where they are fewer."""


@dataclass(frozen=True)
class Ask:
    """A checked question.

    `row`: columns that every candidate has. `fixed`: the columns of CHOSEN that the ask fixes. `work`: one of WORK and
    its amount. `limits`: those of LIMITS that are set (h, kWh, money, kg CO2e, GiB per device). `node_link_gb_s`: see
    KNOWN.
    """

    name: str
    row: dict[str, Any]
    work: tuple[str, float]
    device: str | None
    devices: int
    devices_per_node: int
    global_batch: int
    fixed: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    model: str | None = None
    node_link_gb_s: float | None = None

    @property
    def words(self) -> str:
        """The question in one line."""
        shape = ", ".join(f"{name.replace('_', ' ')} {self.row[name]}" for name in _SHAPE)
        lora = f", LoRA rank {self.row['lora_rank']}" if self.row.get("lora_rank") else ""
        asked = "".join(f", {_LIMIT_WORDS[name].format(f'{value:g}')}" for name, value in self.limits.items())
        shape = f"{self.model} ({shape})" if self.model else shape
        work = f"{self.work[1]:,.0f} {self.work[0]}, {self.global_batch} sequences per step"
        at_most = f"at most {self.devices} x {self.device or 'the device of the model'}"
        return f"{shape}, {self.row.get('precision', 'fp32')}{lora}; {work}; {at_most}{asked}"


def read(path: str | Path) -> list[Ask]:
    """The asks of a YAML file: one mapping, or a list of them under `asks`. Raises UserError."""
    document = read_yaml(Path(path))
    listed = document.get("asks", [document])
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path}: asks must be a list of asks; see docs/choose.md")
    return [make(one, f"{path}, ask {number}") for number, one in enumerate(listed, 1)]


def make(given: Mapping[str, Any], where: str) -> Ask:
    """Check one ask. Raises UserError: what is wrong, where, and the remedy."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} is no mapping of keys; see docs/choose.md")
    known = {*_OWN, *WORK, *LIMITS, *KNOWN, *_ROW} - {
        "seed",
        "replicate",
        "checkpoint",
        "dataset",
        "learning_rate",
    }
    unknown = sorted(set(map(str, given)) - known)
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}")
    given = _filled(given, where)
    lacking = [name for name in _SHAPE if given.get(name) is None]
    if lacking:
        raise UserError(
            f"{where}: the ask does not say {', '.join(lacking)}; give the model's shape, or its name as `model`"
        )
    number = {name: _whole(given, name, default, where) for name, default in _COUNTS.items()}
    per_node = number["devices_per_node"] or min(number["devices"], 8)
    return Ask(
        name=str(given.get("name", "ask")),
        row={name: given[name] for name in _ROW - set(CHOSEN) if given.get(name) is not None},
        work=_work(given, where),
        device=None if given.get("device") is None else str(given["device"]),
        devices=number["devices"],
        devices_per_node=per_node,
        global_batch=number["global_batch"],
        fixed={name: given[name] for name in CHOSEN if given.get(name) is not None},
        limits={n: _positive(given[n], n, where, zero=True) for n in LIMITS if given.get(n) is not None},
        model=given.get("model"),
        **{n: _positive(given[n], n, where) for n in KNOWN if given.get(n) is not None},
    )


def _filled(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The ask with the shape of the model that it names."""
    filled, wrong = models.fill(given, Path())
    if wrong:
        raise UserError(f"{where}: {wrong[0]}")
    if filled.get("model") and filled.get("seq_len") is None and filled.get("max_positions"):
        filled["seq_len"] = min(SEQ_LEN, filled["max_positions"])
    return filled


_COUNTS = {"devices": 1, "devices_per_node": 0, "global_batch": GLOBAL_BATCH}


def _work(given: Mapping[str, Any], where: str) -> tuple[str, float]:
    named = [name for name in WORK if given.get(name) is not None]
    if len(named) != 1:
        what = "names no work" if not named else f"names {' and '.join(named)}"
        raise UserError(f"{where}: the ask {what}; give one of tokens, samples (with epochs) or steps")
    amount = _positive(given[named[0]], named[0], where)
    if given.get("epochs") is not None:
        if named[0] != "samples":
            raise UserError(
                f"{where}: epochs go with samples, not with {named[0]}; give samples or leave them out"
            )
        amount *= _positive(given["epochs"], "epochs", where)
    return named[0], amount


def _whole(given: Mapping[str, Any], name: str, default: int, where: str) -> int:
    value = default if given.get(name) is None else given[name]
    if value != default and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"{where}: {name} is {value!r}; give a whole number of at least 1")
    return value


def _positive(value: Any, name: str, where: str, zero: bool = False) -> float:
    """A number above 0. A limit may be 0; the answer is then that nothing meets it, with the nearest that would."""
    try:
        number = float(value)  # YAML reads 2e9 as text
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise UserError(f"{where}: {name} is {value!r}; give a number above 0")
    return number
