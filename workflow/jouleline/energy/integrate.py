"""The energy of every marked region of a run: one row per device, and one for all of them together."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jouleline.energy.alias import at_risk, refresh_s
from jouleline.energy.device_regions import DeviceView, device_rows
from jouleline.energy.load import Measurement, Node, Series, Unreadable, load_run
from jouleline.energy.state import add_state, event_reasons, idle_power
from jouleline.energy.verdict import INVALID, VALID, decide
from jouleline.energy.windows import windows_of
from jouleline.measure.raw.events import utc
from jouleline.measure.raw.markers import NODE_RANK
from jouleline.schemas.energy import REGIONS


def regions(measurement: Measurement) -> list[dict[str, Any]]:
    """Rows of the regions table (every column; None where unknown), in order of region, then node and device.

    There is always at least one row. A measurement without a region gives one invalid row that says why.
    """
    rows = []
    for node in measurement.nodes:
        for series in node.devices:
            if series.info.get("role") != "other":
                rows += _series_rows(measurement, node, series)
    keys: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        keys.setdefault((row["region"], row["ordinal"]), []).append(row)
    if not keys:
        return [_finish(measurement, _nothing(measurement))]
    finished, expected = [], _expected(measurement)
    for parts in keys.values():
        total = _total(measurement, expected, parts)
        finished += [_finish(measurement, part) for part in parts] + [_finish(measurement, total)]
    return finished


def unreadable(run_id: str) -> dict[str, Any]:
    """The row of a run that cannot be read at all: invalid, with nothing known."""
    verdict, reasons = decide({"run_unreadable"})
    return dict.fromkeys(REGIONS.names) | {"run_id": run_id, "verdict": verdict, "reasons": reasons}


def runs_regions(runs_dir: str | Path, run_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of many runs. A torn run gives one invalid row and does not stop the others.

    Raises UserError where the operating system refuses a file. The run may be whole, so it must not become invalid.
    """
    rows = []
    for run_id in run_ids:
        try:
            rows += [row | {"run_id": run_id} for row in regions(load_run(Path(runs_dir) / run_id))]
        except Unreadable:
            raise
        # Nothing else that is wrong with one run's files may cost the other runs their numbers.
        except Exception as error:
            print(f"{run_id}: {error}", file=sys.stderr)
            rows.append(unreadable(run_id))
    return rows


def _series_rows(measurement: Measurement, node: Node, series: Series) -> list[dict[str, Any]]:
    view = DeviceView(node, series)
    windows = windows_of(node, series)
    idle_w = idle_power(node, view)
    rows = device_rows(view, windows, idle_w)
    meta, info = node.meta or {}, series.info
    offset_us = _utc_offset_us(node)
    real = [rank for rank in windows.ranks if rank != NODE_RANK]
    refresh = refresh_s(series)
    for row in rows:
        add_state(series, row)
        if info["kind"] == "gpu" and at_risk(node, series, row, refresh):
            row["reasons"].add("alias_risk")
        row["reasons"] |= event_reasons(node, series, row["start_us"], row["end_us"])
        row |= {
            "node": node.number,
            "host": meta.get("host"),
            "rank": real[0] if len(real) == 1 else None,
            "device_uuid": info["uuid"],
            "device_name": info.get("name"),
            "role": info.get("role"),
            "start_utc": utc(int(row["start_us"] + offset_us)),
            "end_utc": utc(int(row["end_us"] + offset_us)) if np.isfinite(row["end_us"]) else None,
        }
        if info.get("mig"):
            row["reasons"].add("mig_shared")
    return rows


@dataclass
class Expected:
    """What the whole run should have.

    These are: codes for what it lacks, the devices of the job, the ranks that marked each region, and the time (us
    since 1970) of the end of each region and of the last mark of each rank.
    """

    lacking: set[str]
    devices: int
    marked: dict[tuple[str, int], set[int]]
    region_end_us: dict[tuple[str, int], float]
    rank_end_us: dict[int, float]

    def missing(self, measurement: Measurement, key: tuple[str, int], devices: int) -> set[str]:
        """Codes for a region that was measured on so many devices: those of the run, and `rank_missing` where ranks did
        not mark it but should have."""
        marked, ranks = self.marked.get(key, set()), measurement.expected_ranks
        if ranks is not None and len(marked) < ranks:
            return self.lacking | {"rank_missing"}
        if devices >= self.devices:
            return self.lacking
        # Ranks that went on marking after it are alive and had nothing to mark there: one rank writes a checkpoint,
        # say.
        absent = [end_us for rank, end_us in self.rank_end_us.items() if rank not in marked]
        alive = absent and min(absent) >= self.region_end_us.get(key, np.inf)
        return self.lacking | {"some_ranks" if alive else "rank_missing"}


def _expected(measurement: Measurement) -> Expected:
    expected = Expected(set(), 0, {}, {}, {})
    for node in measurement.nodes:
        if node.meta is None or not node.devices:
            expected.lacking.add("node_missing")
        known = {uuid for s in node.devices for uuid in (s.info["uuid"], *(s.info.get("mig") or []))}
        gpus = any(s.info["kind"] == "gpu" for s in node.devices)
        if gpus and (any(uuid not in known for uuid in node.rank_devices.values()) or _elsewhere(node)):
            expected.lacking.add("wrong_pairing")
        expected.devices += sum(s.info.get("role") == "job" for s in node.devices)
        # Marks of a rank may be lost. Then it cannot be said that the rank made none.
        broken = any(event["kind"] == "markers_broken" for event in node.events)
        for ranks in node.ranks:
            if ranks.rank == NODE_RANK:
                continue
            offset_us = _utc_offset_us(node)
            last_us = np.concatenate((ranks.start_us, ranks.end_us, ranks.step_us))
            last_us = np.max(last_us[np.isfinite(last_us)], initial=-np.inf)
            expected.rank_end_us[ranks.rank] = -np.inf if broken else last_us + offset_us
            for key, end_us in zip(zip(ranks.name, ranks.ordinal.tolist()), ranks.end_us.tolist()):
                expected.marked.setdefault(key, set()).add(ranks.rank)
                until_us = expected.region_end_us.get(key, -np.inf)
                expected.region_end_us[key] = float(np.maximum(until_us, end_us + offset_us))
    return expected


def _utc_offset_us(node: Node) -> float:
    """The offset from the node's clock to the time since 1970 (us)."""
    meta = node.meta or {}
    return meta.get("start_utc_us", 0) - meta.get("start_us", 0)


def _elsewhere(node: Node) -> bool:
    """Whether the driver saw the process of a rank on another device, and never on the one that the rank reported."""
    seen: dict[int, set[int]] = {}
    for event in node.events:
        if event.get("kind") == "processes":
            for pid in event["pids"]:
                seen.setdefault(pid, set()).add(event["device"])
    index = {
        uuid: s.info["index"] for s in node.devices for uuid in (s.info["uuid"], *(s.info.get("mig") or []))
    }
    return any(
        pid in seen and index.get(node.rank_devices.get(rank)) not in seen[pid]
        for rank, pid in node.rank_pids.items()
    )


def _squares(values: list[float]) -> float:
    return float(np.sqrt(np.sum(np.square(values))))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


# How the rows of the job's devices become one. Energies add. Independent uncertainties add in squares. Gains add
# linearly, because the sensors of one maker err in the same direction.
_COMBINE = {
    **dict.fromkeys(("energy_j", "energy_gain_u_j", "idle_power_w", "n_samples", "n_ticks"), sum),
    **dict.fromkeys(("instant_energy_j", "average_energy_j"), sum),
    **dict.fromkeys(("energy_edge_u_j", "energy_gap_u_j"), _squares),
    **dict.fromkeys(("start_utc", "temperature_start_c", "covered_fraction"), min),
    **dict.fromkeys(("end_utc", "time_s", "longest_gap_s", "tick_period_s", "temperature_end_c"), max),
    **dict.fromkeys(("temperature_max_c", "throttle_thermal_fraction", "throttle_power_fraction"), max),
    "sm_clock_mhz": _mean,
}


def _add(rows: list[dict[str, Any]], column: str, combine) -> Any:
    """The combined values of the rows. None when one of them is unknown."""
    values = [row.get(column) for row in rows]
    return combine(values) if values and all(value is not None for value in values) else None


def _total(measurement: Measurement, expected: Expected, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The job's devices together."""
    jobs = [part for part in parts if part["role"] == "job"]
    first = jobs[0] if jobs else parts[0]
    total = {name: first[name] for name in ("region", "ordinal", "parent", "steps")}
    missing = expected.missing(measurement, (first["region"], first["ordinal"]), len(jobs))
    total["reasons"] = missing.union(*(part["reasons"] for part in jobs or parts))
    if not jobs:
        total["reasons"].add("device_missing")
    total |= {name: _add(jobs, name, combine) for name, combine in _COMBINE.items()}
    total |= _host(total, [part for part in parts if part["role"] == "host"])
    for name in ("energy_source", "method", "device_name"):
        kinds = {part.get(name) for part in jobs}
        total[name] = kinds.pop() if len(kinds) == 1 else None
    # One device may have a counter and another one power, or an estimate. The weaker source names the sum.
    sources = {part.get("energy_source") for part in jobs}
    if sources == {"nvml_counter", "nvml_power"}:
        total["energy_source"] = "nvml_power"
    elif "estimate" in sources:
        total["energy_source"] = "estimate"
    if total["energy_j"] is not None and total["time_s"]:
        total["mean_power_w"] = total["energy_j"] / total["time_s"]
    return total


def _host(total: dict[str, Any], hosts: list[dict[str, Any]]) -> dict[str, Any]:
    """The energy of the hosts beside the job's. It is null where it is invalid on one of them. Doubts about it do not
    concern the energy of the job, so they are only notes."""
    verdicts = {decide(host["reasons"])[0] for host in hosts}
    known = None if INVALID in verdicts else _add(hosts, "energy_j", sum)
    noted = {"host_uncertain"} if verdicts - {VALID} else set()
    return {"host_energy_j": known, "reasons": total["reasons"] | noted}


def _nothing(measurement: Measurement) -> dict[str, Any]:
    reasons = {"no_regions"}
    if any(node.meta is None or not node.devices for node in measurement.nodes):
        reasons.add("node_missing")
    return {"reasons": reasons}


def _finish(measurement: Measurement, row: dict[str, Any]) -> dict[str, Any]:
    """Add the verdict. An invalid region has no energy."""
    verdict, reasons = decide(row["reasons"])
    row = {name: row.get(name) for name in REGIONS.names} | {
        "run_id": measurement.run_id,
        "verdict": verdict,
        "reasons": reasons,
    }
    if row["idle_power_w"] is not None and row["time_s"] is not None:
        row["idle_energy_j"] = row["idle_power_w"] * row["time_s"]
    if verdict == INVALID:
        row |= dict.fromkeys(
            ("energy_j", "energy_edge_u_j", "energy_gap_u_j", "energy_gain_u_j", "mean_power_w")
        )
    return row
