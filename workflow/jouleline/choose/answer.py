"""The answer: the front of time against energy, the best candidate for each goal, and the uncertainty of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.choose import candidates, forecast, memory, roof
from jouleline.choose.ask import CHOSEN, Ask
from jouleline.errors import UserError
from jouleline.files import read_json
from jouleline.model.fit.configurations import J_PER_KWH, checked_plan
from jouleline.model.table.runs import Columns

NEAR = 0.02
"""A choice is near the best where it takes at most this share more."""


@dataclass(frozen=True)
class _Goal:
    """What is minimised, and what must not be exceeded."""

    title: str
    least: str
    unit: str
    limit: str | None
    figure: str | None  # the quantity that the limit is about: a key of the figures


def decide(
    ask: Ask,
    model: str | Path | None = None,
    plan: Mapping[str, Any] | None = None,
    measured: Columns | None = None,
) -> dict[str, Any]:
    """The answer to one ask as JSON: see docs/choose.md.

    `model` is the path of a shipped fit, or None for the data sheet. `measured` is a complete runs table; its runs are
    drawn under the roof beside the candidates. Raises UserError where no candidate can run, none can be predicted, or
    none meets a limit.
    """
    plan = checked_plan(plan)
    rows = candidates.enumerate_rows(ask)
    columns = candidates.columns(rows, ask)
    if model is None:
        found = forecast.by_data_sheet(columns, ask.device, ask.name, ask.node_link_gb_s)
    else:
        found = forecast.by_model(read_json(model), str(model), columns, ask.name)
    if not found.known.any():
        why = f"they are on several nodes; {forecast.GIVE_LINK}" if model is None else found.why_not
        raise UserError(
            f"{ask.name}: none of {len(rows)} candidates can be predicted by {found.source}: {why}"
        )
    room = memory.check(columns, ask, found.device)
    if not (found.known & room.fits).any():
        least = int(np.argmin(room.peak_gib))
        raise UserError(
            f"{ask.name}: none of {len(rows)} candidates fits into {room.capacity_gib:g} GiB; "
            f"the smallest needs {room.peak_gib[least]:.4g} ({candidates.name(rows[least])})"
        )
    found = found.only(room.fits)
    place = roof.place(columns, found.time_s)
    figures = {**_figures(found, plan), "memory_gib": room.peak_gib, **place}
    front = _front(figures["time_h"], figures["energy_kwh"])
    picks = [_pick(ask, goal, rows, found, figures, plan) for goal in _goals(ask, plan)]
    entries = [_entry(rows[k], k, found, figures, plan) for k in front]
    return {
        "schema": 1,
        "ask": {"name": ask.name, "words": ask.words, "steps": candidates.steps(ask), "limits": ask.limits},
        "source": found.source,
        "note": found.note,
        "energy_source": found.energy_source,
        "currency": plan["currency"],
        "candidates": len(rows),
        "not_predicted": int((room.fits & ~found.known).sum()),
        "memory": room.words,
        "roof": roof.limits(found.machines, found.device, rows[0]["precision"]),
        "measured": roof.measured(measured, found.device, rows[0]["precision"]) if measured else [],
        "picks": picks,
        "front": entries,
        "all": [
            [_rounded(figures[name][k]) for name in ("time_h", "energy_kwh", *place)]
            for k in np.flatnonzero(found.known)
        ],
    }


def _figures(found: forecast.Forecast, plan: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Time and energy in the units of the answer, and the cost of the electricity. NaN where unknown."""
    kwh = found.energy_j / J_PER_KWH
    figures = {"time_h": found.time_s / 3600, "energy_kwh": kwh, **_billed(kwh, plan)}
    return figures


def _billed(kwh: np.ndarray, plan: Mapping[str, Any]) -> dict[str, np.ndarray]:
    price, carbon = plan["price_per_kwh"], plan["grid_gco2_per_kwh"]
    return {
        "cost": kwh * plan["pue"] * (np.nan if price is None else price),
        "co2_kg": kwh * plan["pue"] * (np.nan if carbon is None else carbon) / 1000,
    }


def _front(time: np.ndarray, energy: np.ndarray) -> list[int]:
    """Candidates that no other candidate beats in both time and energy, from the fastest to the most frugal."""
    order = sorted(
        np.flatnonzero(np.isfinite(time) & np.isfinite(energy)), key=lambda k: (time[k], energy[k])
    )
    front: list[int] = []
    for k in order:
        if not front or energy[k] < energy[front[-1]]:
            front.append(int(k))
    return front


def _goals(ask: Ask, plan: Mapping[str, Any]) -> list[_Goal]:
    deadline = ask.limits.get("deadline_h")
    within = "" if deadline is None else f" within {deadline:g} h"
    limit = "deadline_h" if deadline is not None else None
    goals = [_Goal(f"cheapest{within}", "energy_kwh", "kWh", limit, "time_h" if limit else None)]
    budgets = {
        "budget_kwh": ("energy_kwh", "kWh"),
        "budget_cost": ("cost", plan["currency"]),
        "budget_kgco2": ("co2_kg", "kg CO2e"),
    }
    given = [name for name in budgets if name in ask.limits]
    for name in given:
        figure, unit = budgets[name]
        needed = {"cost": "price_per_kwh", "co2_kg": "grid_gco2_per_kwh"}.get(figure)
        if needed and plan[needed] is None:
            raise UserError(
                f"{ask.name}: {name} needs {needed}; give it too (plan.{needed}, or --{needed.replace('_', '-')})"
            )
        goals.append(_Goal(f"fastest within {ask.limits[name]:g} {unit}", "time_h", "h", name, figure))
    return goals if given else [*goals, _Goal("fastest", "time_h", "h", None, None)]


def _pick(ask, goal: _Goal, rows, found: forecast.Forecast, figures, plan) -> dict[str, Any]:
    """The best candidate for a goal among those that meet its limit."""
    value = np.where(found.known, figures[goal.least], np.nan)
    if goal.limit is not None:
        limited, limit = np.where(found.known, figures[goal.figure], np.nan), ask.limits[goal.limit]
        value = np.where(limited <= limit, value, np.nan)
        if not np.isfinite(value).any():
            nearest = int(np.nanargmin(limited))
            raise UserError(
                f"{ask.name}: none of {int(found.known.sum())} candidates meets {goal.limit} {limit:g}; "
                f"the nearest needs {limited[nearest]:.4g} ({candidates.name(rows[nearest])})"
            )
    best = int(np.nanargmin(value))
    worst = int(np.nanargmax(np.where(np.isfinite(value), figures["energy_kwh"], np.nan)))
    return {
        "goal": goal.title,
        **_entry(rows[best], best, found, figures, plan),
        **_sureness(goal, ask, best, found, plan),
        # The most that could be wasted: the most expensive candidate that meets the same limit.
        "worst": candidates.name(rows[worst]),
        "worst_extra_kwh": _rounded(figures["energy_kwh"][worst] - figures["energy_kwh"][best]),
    }


def _sureness(goal: _Goal, ask: Ask, best: int, found: forecast.Forecast, plan) -> dict[str, float | None]:
    """How sure the choice is: the shares of the model's draws in which it is the best, is near the best, and meets its
    limit; and its mean excess over the best, a fraction. None where there are no draws."""
    names = ("sure", "near", "meets", "regret")
    if found.draws is None:
        return dict.fromkeys(names)
    kwh = found.draws[1] / J_PER_KWH
    drawn = {"time_h": found.draws[0] / 3600, "energy_kwh": kwh, **_billed(kwh, plan)}
    value = np.where(found.known, drawn[goal.least], np.inf)
    value = np.where(np.isfinite(value), value, np.inf)
    meets = np.ones(len(value), dtype=bool)
    if goal.limit is not None:
        allowed = drawn[goal.figure] <= ask.limits[goal.limit]
        meets, value = allowed[:, best], np.where(allowed, value, np.inf)
    least = value.min(axis=1)
    extra = np.full(len(value), np.inf)
    extra[meets] = value[meets, best] / least[meets] - 1
    return {
        "sure": float((meets & (value.argmin(axis=1) == best)).mean()),
        "near": float((extra <= NEAR).mean()),
        "meets": float(meets.mean()),
        "regret": float(extra[meets].mean()) if meets.any() else None,
    }


def _entry(row: Mapping[str, Any], k: int, found: forecast.Forecast, figures, plan) -> dict[str, Any]:
    """One candidate as JSON."""
    entry: dict[str, Any] = {"name": candidates.name(row), "row": {name: row[name] for name in CHOSEN}}
    entry |= {name: _rounded(values[k]) for name, values in figures.items()}
    for level in (80, 95):
        for end in ("lo", "hi"):
            kwh = found.bounds[f"energy_{end}{level}_j"][k] / J_PER_KWH
            entry[f"time_{end}{level}_h"] = _rounded(found.bounds[f"time_{end}{level}_s"][k] / 3600)
            entry[f"energy_{end}{level}_kwh"] = _rounded(kwh)
            entry |= {f"{name}_{end}{level}": _rounded(value) for name, value in _billed(kwh, plan).items()}
    parts = None if found.parts is None else {name: _rounded(found.parts[name][k]) for name in forecast.PARTS}
    return entry | {"parts": parts, "extrapolation_axes": found.axes[k]}


def _rounded(value: float) -> float | None:
    """Six digits. None where unknown."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
