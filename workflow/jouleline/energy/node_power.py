"""What the meters say about a node's power states: idle, waiting, memory-bound, compute-bound."""

from pathlib import Path
from typing import Any

from jouleline.energy.device_regions import DeviceView
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.energy.state import idle_power
from jouleline.schemas.calibration import entry

# The region of each power. Bare idle is what the sidecar saw before any rank started.
_STATES = {
    "context_idle_power_w": "context_idle",
    "active_wait_host_power_w": "active_wait_host",
    "memory_bound_power_w": "memory_bound",
    "compute_bound_power_w": "compute_bound",
    "active_wait_comm_power_w": "active_wait_comm",
}


def calibration_powers(folder: str | Path, ranks: int) -> list[dict[str, Any]]:
    """Power entries (W per device) of the calibration table, from the measurement directory of a calibration with
    `ranks` devices.

    For each state only the devices in that state count: rank 0's alone, or all of them while they communicate.
    """
    rows = regions(load_measurement(folder))
    jobs = [row for row in rows if row["device_uuid"] is not None and row.get("role") == "job"]
    found = []
    for quantity, name in _STATES.items():
        here = [row for row in jobs if row["region"] == name]
        share = ranks if name == "active_wait_comm" else 1
        if name == "active_wait_comm" and ranks == 1:
            found.append(entry(quantity, None, "one device: there is nothing to communicate with"))
        else:
            found.append(_power(quantity, here, share))
        if name == "context_idle":
            found.append(_power("idle_power_w", [_while_idle(row) for row in here], share))
    return found


def idle_devices(folder: str | Path) -> list[dict[str, Any]]:
    """For each device of the meter: uuid, name, kind, role, idle_power_w (None where unknown)."""
    node = load_measurement(folder).nodes[0]
    return [
        {
            **{key: series.info.get(key) for key in ("uuid", "name", "kind", "role")},
            "idle_power_w": idle_power(node, DeviceView(node, series)),
        }
        for series in node.devices
    ]


def _while_idle(row: dict[str, Any]) -> dict[str, Any]:
    """The region's row as if the device had been as idle as before it. The relative uncertainties are the region's."""
    idle_j, energy_j = row["idle_energy_j"], row["energy_j"]
    share = idle_j / energy_j if idle_j is not None and energy_j else None
    scaled = ("energy_edge_u_j", "energy_gain_u_j")
    return (
        row
        | {"energy_j": idle_j}
        | {key: None if share is None or row[key] is None else share * row[key] for key in scaled}
    )


def _power(quantity: str, rows: list[dict[str, Any]], share: int) -> dict[str, Any]:
    """Mean power of `rows` together, divided by `share` devices. None where a row is invalid or has no energy."""
    bad = sorted(
        {row["reasons"] or "no energy" for row in rows if row["verdict"] == "invalid" or not row["energy_j"]}
    )
    if bad or not rows:
        return entry(quantity, None, f"not measured: {'; '.join(bad) or 'no meter saw it'}")
    energy_j = sum(row["energy_j"] for row in rows)
    variance = [(row["energy_edge_u_j"] or 0) ** 2 + (row["energy_gain_u_j"] or 0) ** 2 for row in rows]
    unknown = any(row["energy_edge_u_j"] is None or row["energy_gain_u_j"] is None for row in rows)
    spread = None if unknown else sum(variance) ** 0.5 / energy_j
    source, method = rows[0]["energy_source"], rows[0]["method"]
    how = "estimate: declared watts x CPU time" if source == "estimate" else f"{source}, {method}"
    seconds = max(row["time_s"] for row in rows)
    return entry(quantity, energy_j / seconds / share, f"{how}, over {seconds:.1f} s", u_rel=spread, n=1)
