"""An answer as lines for a terminal."""

from collections.abc import Mapping
from typing import Any

Answer = Mapping[str, Any]


def lines(answer: Answer, most: int = 12) -> list[str]:
    """The question, the choices and how sure they are, the front, and remarks."""
    ask, front = answer["ask"], answer["front"]
    head = [
        f"{ask['name']}: {ask['words']}",
        f"{answer['candidates']} candidates, predicted by {answer['source']}",
    ]
    if answer["not_predicted"]:
        head[-1] += f"; {answer['not_predicted']} of them not predicted"
    shown = [line for pick in answer["picks"] for line in _pick(pick, answer["currency"])]
    table = ["", f"Front of time against energy ({len(front)}), fastest first:"]
    table += [f"  {_figures(entry)}  {entry['name']}" for entry in front[:most]]
    table += [f"  ... and {len(front) - most} more"] if len(front) > most else []
    estimated = [_ESTIMATED] if answer["energy_source"] == "estimate" else []
    return [*head, *shown, *table, "", answer["memory"], answer["note"], *estimated]


_ESTIMATED = "ENERGY IS ESTIMATED, NOT MEASURED: so were the runs that the model is fitted to."


def _pick(pick: Mapping[str, Any], currency: str) -> list[str]:
    found = ["", f"{pick['goal']}: {pick['name']}", f"  {_figures(pick)}{_bill(pick, currency)}"]
    if pick["sure"] is not None:
        sure = (
            f"  best in {pick['sure']:.0%} of the model's draws, within 2 % of the best in {pick['near']:.0%}"
        )
        found.append(f"{sure}, meets its limit in {pick['meets']:.0%}" if pick["meets"] < 1 else sure)
    if pick["worst_extra_kwh"]:
        found.append(f"  a wrong choice wastes up to {pick['worst_extra_kwh']:.3g} kWh ({pick['worst']})")
    found.append(f"  memory: {pick['memory_gib']:.3g} GiB a device at its largest moment, margin included")
    if pick["parts"] and None not in pick["parts"].values():
        found.append("  energy: " + ", ".join(f"{name} {share:.0%}" for name, share in pick["parts"].items()))
    if pick["extrapolation_axes"]:
        found.append(f"  extrapolates along {pick['extrapolation_axes'].replace(',', ', ')}")
    return found


def _figures(entry: Mapping[str, Any]) -> str:
    return f"{_with(entry, 'time', 'h'):<28} {_with(entry, 'energy', 'kwh').replace('kwh', 'kWh'):<30}"


def _with(entry: Mapping[str, Any], target: str, unit: str) -> str:
    low, high = entry[f"{target}_lo95_{unit}"], entry[f"{target}_hi95_{unit}"]
    bounds = "interval unknown" if None in (low, high) else f"{low:.3g} to {high:.3g}"
    return f"{entry[f'{target}_{unit}']:.3g} {unit} ({bounds})"


def _bill(entry: Mapping[str, Any], currency: str) -> str:
    parts = [f"{entry['cost']:.3g} {currency}"] if entry["cost"] is not None else []
    parts += [f"{entry['co2_kg']:.3g} kg CO2e"] if entry["co2_kg"] is not None else []
    return ", ".join(parts)
