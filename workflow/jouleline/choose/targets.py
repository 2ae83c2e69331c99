"""The candidates of asks as rows of a runs table. A choice of runs is to learn about these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jouleline.choose import candidates, memory
from jouleline.choose.ask import Ask
from jouleline.errors import UserError
from jouleline.model.features import Data
from jouleline.model.fit.configurations import planned_rows
from jouleline.model.frugal.choose import joined
from jouleline.model.frugal.greedy import MOST_TARGETS


@dataclass(frozen=True)
class Asked:
    """Candidates of all asks that fit in memory: rows, with a name as `run_id` and their device; and the same as
    arrays.
    """

    rows: list[dict[str, Any]]
    data: Data


def of_asks(asks: Sequence[Ask], devices: list[str]) -> Asked | None:
    """The candidates of some asks; None without asks. An equal number of each ask where there are too many.

    `devices` are those of the campaign. An ask that names no device is about the first. Raises UserError where no
    candidate of an ask can run, or fits in memory.
    """
    found: Asked | None = None
    for ask in asks:
        one = _of_ask(ask, devices, max(MOST_TARGETS // len(asks), 1))
        if found is not None:
            one = Asked(found.rows + one.rows, joined(found.data, one.data))
        found = one
    return found


def _of_ask(ask: Ask, devices: list[str], most: int) -> Asked:
    rows = candidates.enumerate_rows(ask)
    columns = candidates.columns(rows, ask)
    if "device" not in columns:
        columns["device"] = np.full(len(rows), devices[0], dtype=object)
    kept = np.flatnonzero(memory.check(columns, ask, columns["device"][0]).fits)
    if not len(kept):
        raise UserError(f"{ask.name}: none of {len(rows)} candidates fits in the memory of a device")
    if len(kept) > most:  # taken at even distances, so that no kind is lost
        kept = kept[np.linspace(0, len(kept) - 1, most).astype(int)]
    some = {name: values[kept] for name, values in columns.items()}
    named = [
        {**rows[k], "run_id": f"{ask.name}: {candidates.name(rows[k])}", "device": columns["device"][k]}
        for k in kept
    ]
    return Asked(named, planned_rows(some, devices, ask.name))
