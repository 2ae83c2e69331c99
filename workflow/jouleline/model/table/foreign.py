"""What foreign tables do not say in columns: models by name, power by samples, the workload in another table."""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from jouleline.campaign import models
from jouleline.errors import UserError
from jouleline.model.table.checks import as_numbers, texts
from jouleline.model.table.files import Columns
from jouleline.schemas.runs import RUNS


def shapes_of(names: np.ndarray, ours: Mapping[str, str], where: str) -> tuple[np.ndarray, Columns]:
    """(which rows name a model of campaign/models.csv [rows], the shape columns of those rows).

    `ours` gives our name for each of their model names. Rows of other models are named on stderr and left out. Raises
    UserError where no row is left.
    """
    short = [ours.get(str(name), str(name)).rsplit("/", 1)[-1].casefold() for name in names.tolist()]
    known = np.array([name in models.known() for name in short])
    unknown = Counter(str(name) for name, here in zip(names.tolist(), known.tolist()) if not here)
    told = ", ".join(f"{name} ({count})" for name, count in unknown.items())
    if not known.any():
        raise UserError(
            f"{where}: no row's model has a known shape ({told}); map the names in `model.values`"
        )
    if unknown:
        print(f"{where}: rows of models without a known shape are left out: {told}", file=sys.stderr)
    rows = [models.known()[name] for name, here in zip(short, known.tolist()) if here]
    columns = [name for name in models.SHAPE if name in RUNS.names and any(name in row for row in rows)]
    return known, {name: np.array([row.get(name) for row in rows], dtype=object) for name in columns}


_INTEGRATE = {"by", "sensor", "time", "value", "factor", "where"}


def require_integrate(how: Any) -> None:
    """Raise UserError where a value does not say how samples are integrated."""
    fits = isinstance(how, Mapping) and {"by", "sensor", "time", "value"} <= set(how) <= _INTEGRATE
    if not (fits and isinstance(how["sensor"], list) and isinstance(how.get("where", {}), Mapping)):
        raise UserError(
            "the mapping's integrate does not say how; give by, sensor (a list), time, value; factor, where"
        )


def named_by(how: Mapping[str, Any]) -> set[str]:
    """Their columns that a mapping's `integrate` names."""
    named = {how["by"], *how["sensor"], how["time"], how["value"], *how.get("where", {})}
    return named | ({how["factor"]} if "factor" in how else set())


def integrate(samples: Columns, how: Mapping[str, Any], where: str) -> Columns:
    """One row per value of `by`, with energy_j and time_s.

    energy_j is the sum over the sensors of the trapezoids of power over time. time_s is the longest time span of a
    sensor. `sensor` are the columns that distinguish the sensors. Power is `value` times `factor` in W, `time` is in s,
    and `where` selects the sensors that count. A sensor with one sample says nothing. Then the energy of its run is
    null.
    """
    missing = sorted(named_by(how) - set(samples))
    if missing:
        raise UserError(
            f"{where} has no column {missing[0]}, which the mapping names; it has {', '.join(samples)}"
        )
    kept = np.ones(len(samples[how["by"]]), dtype=bool)
    for name, values in how.get("where", {}).items():
        kept &= np.isin(samples[name].astype(str), [str(value) for value in values])
    if not kept.any():
        raise UserError(f"{where}: no sample passes the mapping's `integrate.where`; correct its values")
    time = as_numbers(samples[how["time"]], f"{where}: {how['time']}")
    power = as_numbers(samples[how["value"]], f"{where}: {how['value']}")
    power = power * (
        as_numbers(samples[how["factor"]], f"{where}: {how['factor']}") if "factor" in how else 1.0
    )
    parts: dict[Any, list[tuple[float, float]]] = {}
    keys = list(zip(*(samples[name].tolist() for name in (how["by"], *how["sensor"])), strict=True))
    for key in dict.fromkeys(keys[row] for row in np.flatnonzero(kept)):
        rows = np.array([row for row in np.flatnonzero(kept) if keys[row] == key])
        rows = rows[np.argsort(time[rows], kind="stable")]
        enough = len(rows) > 1
        joule = np.trapezoid(power[rows], time[rows]) if enough else np.nan
        parts.setdefault(key[0], []).append((joule, time[rows[-1]] - time[rows[0]]))
    return {
        how["by"]: np.array(list(parts), dtype=object),
        "energy_j": np.array([sum(joule for joule, _ in found) for found in parts.values()]),
        "time_s": np.array([max(span for _, span in found) for found in parts.values()]),
    }


def joined(measured: Columns, keys: list[str], beside: Columns | None, where: str) -> Columns:
    """The measured columns, joined with the table `beside` that says what was run, where `keys` are equal.

    Raises UserError without such a table, for one of its rows that was not measured, and for a key that stands twice.
    """
    if beside is None:
        raise UserError(f"{where} says nothing of what was run; give a table of it with --rows")
    lacking = [name for name in keys if name not in beside]
    if lacking:
        raise UserError(
            f"the table of --rows lacks {lacking[0]}, by which its rows meet those of {where}; add it"
        )
    there, here = (_keys(table, keys, name) for table, name in ((measured, where), (beside, "--rows")))
    missing = [key for key in here if key not in there]
    if missing:
        raise UserError(
            f"{where} has no {', '.join(keys)} {', '.join(missing[0])} of --rows; correct it, or leave it out"
        )
    order = np.array([there[key] for key in here])
    return {**beside, **{name: values[order] for name, values in measured.items()}}


def _keys(table: Columns, keys: list[str], where: str) -> dict[tuple, int]:
    """The row of each key."""
    columns = [texts(table[name], f"{where}: {name}").tolist() for name in keys]
    rows = list(zip(*columns, strict=True))
    twice = [key for key, count in Counter(rows).items() if count > 1]
    if twice:
        raise UserError(
            f"{where} has {', '.join(keys)} {', '.join(map(str, twice[0]))} twice; keep one of its rows"
        )
    return {row: number for number, row in enumerate(rows)}
