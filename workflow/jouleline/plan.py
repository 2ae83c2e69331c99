"""What a campaign would cost, before anything runs: device hours, energy, price and CO2 of every row, and the total.

The newest fitted model predicts. Without a model, the data sheet of the device gives bounds (its roofline). Without
either, the figure is unknown, and the plan says so. `lo` and `hi` are the ends of the model's 95 % interval. With a
data sheet they are the ends of the range of SHARES below, which is no confidence interval. `source` says which.
"""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from jouleline import architecture
from jouleline.architecture.memory import PARTS, peak_memory
from jouleline.campaign.protocol import complete_protocol
from jouleline.errors import UserError
from jouleline.files import read_json
from jouleline.model.base import Prediction
from jouleline.model.fit.configurations import J_PER_KWH, predict_table
from jouleline.model.machine import Machines
from jouleline.reduce import runs as tables
from jouleline.units import GIB

# Time of a job outside its window (start-up, idle baselines, warm-up), used where no finished run tells it.
OVERHEAD_S = 30.0
# The assumed shares of the data sheet's rates, and of its power limit, that training reaches: low, middle, high.
RATE_SHARE = (0.10, 0.35, 0.70)
POWER_SHARE = (0.4, 0.7, 1.0)

FITS, TIGHT, TOO_LARGE = "fits", "may not fit", "cannot fit"

MOST_SHOWN = 10

MEMORY = ("memory_gib", "memory", "memory_note")
COLUMNS = (
    *("run_id", "device_count", "source", "job_time_s", "job_time_lo_s", "job_time_hi_s"),
    *("device_hours", "device_hours_lo", "device_hours_hi"),
    *("energy_kwh", "energy_lo_kwh", "energy_hi_kwh"),
    *("cost", "cost_lo", "cost_hi", "co2_kg", "co2_lo_kg", "co2_hi_kg"),
    *MEMORY,
)

Row = dict[str, Any]


def finished(folder: Path, run_ids: list[str]) -> dict[str, Row]:
    """The records, by run id, of the runs in a campaign's folder that did not fail."""
    records = {run_id: tables.read_record(folder / "runs" / run_id) for run_id in run_ids}
    return {run_id: record for run_id, record in records.items() if record and record["status"] != "failed"}


def campaign(
    folder: Path,
    rows: list[Row],
    done: Mapping[str, Row],
    protocol: Mapping[str, Any],
    plan: Mapping[str, Any],
    headline: str,
) -> tuple[list[Row], Row]:
    """(lines, total) of the `rows` of a campaign that would be measured. `rows` are complete, with their run_id.

    `folder` is the campaign's. `done` has its finished records, which tell the time outside the window.
    """
    model = newest_model(folder.parent, folder.name, headline, plan["device"])
    protocol = complete_protocol(protocol)
    planned = estimate(rows, protocol, plan, model, overhead(done))
    for line, found in zip(planned, memory(rows, protocol, plan), strict=True):
        line |= found
    return planned, totals(planned)


def memory(rows: list[Row], protocol: Mapping[str, Any], plan: Mapping[str, Any]) -> list[Row]:
    """The peak memory of one device (GiB) for each row, and whether it fits; null where unknown.

    `memory` is FITS, TIGHT (the peak with its margin is more than a device has) or TOO_LARGE (the part that is
    certain is more). `memory_note` names the largest part and what makes it smaller. The capacity is
    `plan.memory_gib`, else that of the data sheet of `plan.device`. A CPU's memory is not checked.
    """
    capacity = capacity_gib(plan)
    if not rows or capacity is None or protocol["device"] == "cpu":
        return [{"run_id": row["run_id"], **dict.fromkeys(MEMORY)} for row in rows]
    names = rows[0].keys() - {"run_id"}
    columns = {name: [row[name] for row in rows] for name in names}
    counts = [_counts(row) for row in rows]
    columns |= {name: [one[name] for one in counts] for name in counts[0]}
    found = peak_memory(
        {name: values for name, values in columns.items() if any(v is not None for v in values)}
    )
    return [
        {
            "run_id": row["run_id"],
            **_fit({name: float(values[i]) / GIB for name, values in found.items()}, capacity),
        }
        for i, row in enumerate(rows)
    ]


def capacity_gib(plan: Mapping[str, Any]) -> float | None:
    """Memory of one device for the plan, in GiB; None where it is unknown."""
    if plan["memory_gib"] is not None:
        return plan["memory_gib"]
    sheet = Machines().get(plan["device"], "memory_capacity") if plan["device"] else None
    return None if sheet is None else sheet / GIB


def _fit(part_gib: Mapping[str, float], capacity: float) -> Row:
    peak, floor = part_gib["peak"], part_gib["floor"]
    if peak <= capacity:
        return {"memory_gib": peak, "memory": FITS, "memory_note": None}
    largest = max(PARTS, key=lambda name: part_gib[name])
    what, _, remedy = PARTS[largest].partition("; ")
    if floor > capacity:
        verdict, needs = TOO_LARGE, f"at least {floor:.3g}"
    else:
        verdict, needs = TIGHT, f"up to {peak:.3g}"
    note = f"{needs} of {capacity:.3g} GiB, {part_gib[largest]:.3g} of them {what}; what helps: {remedy}"
    return {"memory_gib": peak, "memory": verdict, "memory_note": note}


def newest_model(results: Path, campaign: str, headline: str, device: str | None) -> tuple[str, Any] | None:
    """(path, fit) of the model to plan with: the campaign's own, else the newest of another campaign on `device`."""
    own = results / campaign / "fit" / headline / "all.json"
    others = sorted(results.glob(f"*/fit/{headline}/all.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in [own, *(p for p in others if p != own)]:
        if not path.exists():
            continue
        fit = read_json(path)
        fold = fit["folds"][0] if fit.get("folds") else {"identified": False}
        if not fold["identified"]:
            continue
        names = fold["domain"]["categories"]["device"]
        if path == own or (device and any(device.lower() in name.lower() for name in names)):
            return str(path), fit
    return None


def estimate(
    rows: list[Row],
    protocol: Mapping[str, Any],
    plan: Mapping[str, Any],
    model: tuple[str, Any] | None,
    overhead_s: float,
) -> list[Row]:
    """One line of the plan for each complete grid row (with its run_id); null where nothing is known.

    The job is assumed to draw its predicted power from start to end. This overestimates.
    """
    if not rows:
        return []
    steps = _by_model(rows, *model) if model else _by_data_sheet(rows, plan["device"])
    return priced(rows, steps, protocol, plan, overhead_s)


def priced(
    rows: list[Row],
    steps: list[Row],
    protocol: Mapping[str, Any],
    plan: Mapping[str, Any],
    overhead_s: float,
) -> list[Row]:
    """A line of the plan for each row and its known step: `step_s` and `power_w`, each low, middle and high."""
    return [_line(row, step, protocol, plan, overhead_s) for row, step in zip(rows, steps, strict=True)]


def of_fit(source: str, expected: Prediction) -> list[Row]:
    """The steps of rows as a fit expects them, for `priced`. They have no interval: low, middle and high are equal."""
    power_w = expected.step_energy_j / expected.step_time_s
    return [
        {"source": source, "step_s": _known([float(t)] * 3), "power_w": _known([float(p)] * 3)}
        for t, p in zip(expected.step_time_s, power_w, strict=True)
    ]


def joules(lines: list[Row]) -> np.ndarray:
    """Energy of each line's job, J; NaN where unknown."""
    kwh = [np.nan if line["energy_kwh"] is None else line["energy_kwh"] for line in lines]
    return np.array(kwh, dtype=float) * J_PER_KWH


def overhead(done: Mapping[str, Row]) -> float:
    """Time of a job outside its window, s: the median of the finished runs (see `finished`), else OVERHEAD_S."""
    known_s = [r["wall_s"] - r["training"]["time_s"] for r in done.values() if r["status"] == "ok"]
    return median(known_s) if known_s else OVERHEAD_S


def _by_model(rows: list[Row], path: str, fit: Mapping[str, Any]) -> list[Row]:
    names = [name for name in rows[0] if name != "run_id" and any(row[name] is not None for row in rows)]
    raw = {name: np.array([row[name] for row in rows], dtype=object) for name in names}
    table = predict_table(fit, raw, "the grid")
    found = []
    for i in range(len(rows)):
        time_s = [float(table[f"{key}_s"][i]) for key in ("time_lo95", "predicted_time", "time_hi95")]
        energy_j = [float(table[f"{key}_j"][i]) for key in ("energy_lo95", "predicted_energy", "energy_hi95")]
        power = [e / t for e, t in zip(energy_j, [time_s[1]] * 3, strict=True)]
        found.append({"source": path, "step_s": _known(time_s), "power_w": _known(power)})
    return found


def _by_data_sheet(rows: list[Row], device: str | None) -> list[Row]:
    machines = Machines()
    if device and not machines.known(device):
        raise UserError(
            f"there is no data sheet of plan.device {device!r} here; name another, or leave it out"
        )
    power = machines.get(device, "power_limit_w") if device else None
    counts = [_counts(row) for row in rows]
    work = architecture.proxies([{**row, **count} for row, count in zip(rows, counts)]) if power else {}
    found = []
    for i, row in enumerate(rows):
        peak = machines.get(device, "peak_flops", row["precision"]) if device else None
        if peak is None or power is None:
            found.append({"source": "unknown", "step_s": [None] * 3, "power_w": [None] * 3})
            continue
        rates = {"compute_flop": peak, "memory_byte": machines.get(device, "memory_bandwidth_triad")}
        rates["comm_byte"] = machines.get(device, "link_bandwidth")
        bound_s = max(float(work[name][i]) / rate for name, rate in rates.items() if rate)
        step_s = [bound_s / share for share in reversed(RATE_SHARE)]
        watts = [power * share * counts[i]["device_count"] for share in POWER_SHARE]
        found.append({"source": f"data sheet of {device}", "step_s": step_s, "power_w": watts})
    return found


def _counts(row: Row) -> dict[str, int]:
    devices = row["nodes"] * row["gpus_per_node"]
    return {"device_count": devices, "data_parallel": devices // row["tensor_parallel"]}


def _known(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _line(
    row: Row, step: Row, protocol: Mapping[str, Any], plan: Mapping[str, Any], overhead_s: float
) -> Row:
    def job_s(step_s: float | None) -> float | None:
        if step_s is None:
            return None
        warmup_s = protocol["warmup_steps"] * 2 * step_s
        return max(protocol["window_s"], protocol["window_steps"] * step_s) + warmup_s + overhead_s

    devices = _counts(row)["device_count"]
    times_s = [job_s(step_s) for step_s in step["step_s"]]
    kwh = [_times(time_s, power_w) for time_s, power_w in zip(times_s, step["power_w"], strict=True)]
    billed = [_times(value, plan["pue"], unit=1) for value in kwh]
    figures = (
        times_s,
        [_times(time_s, devices, unit=3600) for time_s in times_s],
        kwh,
        [_times(value, plan["price_per_kwh"], unit=1) for value in billed],
        [_times(value, plan["grid_gco2_per_kwh"], unit=1000) for value in billed],
    )
    values = [value for low, middle, high in figures for value in (middle, low, high)]
    return dict(zip(COLUMNS, (row["run_id"], devices, step["source"], *values), strict=False))


def _times(a: float | None, b: float | None, unit: float = J_PER_KWH) -> float | None:
    return None if a is None or b is None else a * b / unit


def totals(lines: list[Row]) -> Row:
    """Sums over the lines; null where a line is unknown. Intervals are summed end to end, so they are rather too wide.

    The time is that of one job after another.
    """
    names = [name for name in COLUMNS[3:] if not name.startswith("memory")]
    sums = {name: [line[name] for line in lines] for name in names}
    return {
        name: None if any(v is None for v in values) else math.fsum(values) for name, values in sums.items()
    }


def require_budget(total: Row, plan: Mapping[str, Any]) -> None:
    """Raise UserError where the total exceeds `max_gpu_hours` or `max_kwh`, or is unknown beside such a limit."""
    for key, name, unit in (
        ("max_gpu_hours", "device_hours", "device hours"),
        ("max_kwh", "energy_kwh", "kWh"),
    ):
        limit, value = plan[key], total[name]
        if limit is None:
            continue
        if value is None:
            raise UserError(
                f"plan.{key} is {limit:g}, but the {unit} are not known; name plan.device or fit a model", 1
            )
        if value > limit:
            raise UserError(
                f"the campaign needs {value:.3g} {unit}, plan.{key} allows {limit:g}; cut rows or raise it", 1
            )


def require_memory(lines: list[Row], plan: Mapping[str, Any]) -> None:
    """Raise UserError where runs cannot fit in the memory of their devices. The first of them get one line each."""
    bad = [line for line in lines if line.get("memory") == TOO_LARGE]
    if bad and plan["refuse_memory"]:
        notes = {
            line["run_id"].rpartition("-r")[0]: line["memory_note"] for line in bad
        }  # replicates are alike
        shown = [f"{row_id}: {note}" for row_id, note in list(notes.items())[:MOST_SHOWN]]
        shown += [f"... and {len(notes) - MOST_SHOWN} more rows"] if len(notes) > MOST_SHOWN else []
        what = f"{len(bad)} run{'s' if len(bad) > 1 else ''} cannot fit in the memory of a device"
        remedy = "leave them out, or say plan.refuse_memory: false"
        raise UserError("\n  ".join([f"{what}; {remedy}", *shown]), 1)


def as_csv(lines: list[Row]) -> str:
    """The plan as CSV; null is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_text(lines: list[Row], total: Row, currency: str, most: int = 20) -> str:
    """The plan for a terminal: its first lines and the total."""
    shown = [f"{'run':<72} {'devices':>7} {'job s':>8} {'dev h':>8} {'kWh':>9}"]
    for line in lines[:most]:
        figures = (
            f"{_show(line['job_time_s'], 8)} {_show(line['device_hours'], 8)} {_show(line['energy_kwh'], 9)}"
        )
        shown.append(f"{line['run_id'][:72]:<72} {line['device_count']:>7} {figures}")
    if len(lines) > most:
        shown.append(f"... and {len(lines) - most} more")
    parts = [
        f"{_show(total[middle])} {unit} ({_show(total[low])} to {_show(total[high])})"
        for middle, low, high, unit in (
            ("device_hours", "device_hours_lo", "device_hours_hi", "device hours"),
            ("energy_kwh", "energy_lo_kwh", "energy_hi_kwh", "kWh"),
            ("cost", "cost_lo", "cost_hi", currency),
            ("co2_kg", "co2_lo_kg", "co2_hi_kg", "kg CO2e"),
        )
    ]
    shown.append(f"{len(lines)} runs to measure: {', '.join(parts)}".replace(" (unknown to unknown)", ""))
    shown += sorted({f"predicted by: {line['source']}" for line in lines})
    for verdict in (TOO_LARGE, TIGHT):
        found = [line for line in lines if line.get("memory") == verdict]
        if found:
            first = f"{found[0]['run_id']}: {found[0]['memory_note']}"
            shown.append(f"{len(found)} {verdict} in memory, such as {first}")
    return "\n".join(shown)


def _show(value: float | None, width: int = 0) -> str:
    return f"{'unknown' if value is None else format(value, '.3g'):>{width}}"
