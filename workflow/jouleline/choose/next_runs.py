"""Which runs would teach most about the asks of a campaign, or about the rows of its grid that are not measured."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jouleline.choose import targets
from jouleline.choose.ask import Ask
from jouleline.errors import UserError
from jouleline.model.frugal.table import suggest
from jouleline.model.table.runs import Columns

COUNT = 3

Document = dict[str, Any]


def next_runs(
    measured: Columns,
    rows: Mapping[str, Mapping[str, Any]],
    asks: Sequence[Ask],
    calibration: Mapping[str, Any] | None = None,
    memory_gib: float | None = None,
) -> Document:
    """The COUNT runs to measure next, as JSON: `runs`, best first, or none and the `reason`.

    `measured` is a complete runs table. `rows` are those of the grid that are not measured, by run id. A suggested run
    is one of these rows or a candidate of an ask. The goal is to predict the candidates of the asks; without asks, the
    grid. A run is assumed to last as long as the measured ones did (median).
    """
    counted = Counter(measured["device"].tolist())
    devices = [name for name, _ in counted.most_common()]
    document: Document = {"schema": 1, "target": "asks" if asks else "grid", "runs": [], "reason": None}
    if not devices:
        return {**document, "candidates": None, "reason": "no run is good for a fit"}
    try:
        asked = targets.of_asks(asks, devices)
        offered = [{**row, "run_id": run_id, "device": devices[0]} for run_id, row in rows.items()]
        offered += asked.rows if asked else []
        document["candidates"] = len(offered)
        if not offered:
            return {**document, "reason": "every row is measured, and nothing is asked"}
        raw = {name: np.array([row.get(name) for row in offered], dtype=object) for name in offered[0]}
        count = min(COUNT, len(offered))
        goal = asked.data if asked else None
        chosen, _ = suggest(measured, raw, "the candidates", count, calibration, memory_gib, goal)
    except UserError as error:
        return {**document, "reason": str(error)}
    if np.isnan(chosen["expected_error_before"]).any():
        return {**document, "reason": "the runs are too few to identify the model"}
    return {**document, "runs": [_entry(chosen, k) for k in range(count)]}


def _entry(chosen: Columns, k: int) -> Document:
    figures = {name: float(chosen[name][k]) for name in chosen if name.startswith("expected_")}
    known = {name: value if np.isfinite(value) else None for name, value in figures.items()}
    devices = int(chosen["nodes"][k] * chosen["gpus_per_node"][k])
    return {"name": chosen["run_id"][k], "device_count": devices, "reason": chosen["reason"][k], **known}
