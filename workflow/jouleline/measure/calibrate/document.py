"""A calibration as a document: what it says about the node, its entries in order, and the rows of its table."""

from collections.abc import Iterable, Mapping
from typing import Any

from jouleline.measure.node.environment import describe
from jouleline.schemas.calibration import QUANTITIES


def identity(device: str, name: str | None, job: Mapping[str, Any]) -> dict[str, Any]:
    """Device type and software stack, for people and for the model."""
    facts = describe(device, {"device": name})
    software = {
        **{key: facts[key] for key in ("os", "kernel", "python", "driver")},
        **{package: facts["packages"][package] for package in ("torch", "numpy")},
        **{"devices": job["ranks"], "threads_per_device": job["threads"] if device == "cpu" else None},
    }
    return {"device": facts["device"], "device_kind": device, "software": software}


def with_entries(calibration: Mapping[str, Any], more: list[dict[str, Any]]) -> dict[str, Any]:
    """The calibration with more entries (powers, links between nodes), in the order of QUANTITIES."""
    order = list(QUANTITIES)
    quantities = [*calibration["quantities"], *more]
    return {**calibration, "quantities": sorted(quantities, key=lambda item: order.index(item["quantity"]))}


def with_links(calibration: Mapping[str, Any], links: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The calibration with the links between nodes (each written by `LinkAgent`), by the number of nodes.

    Links between nodes with other devices get no values, because nothing is known about this device's links then.
    """
    entries = []
    for one in sorted(links, key=lambda link: link["nodes"]):
        strange = one["device"] != calibration["device"]
        method = f"measured between nodes with {one['device']}"
        unknown = {"value": None, "u_rel": None, "n": None, "method": method} if strange else {}
        entries += [entry | unknown for entry in one["quantities"]]
    return with_entries(calibration, entries)


def table_rows(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the calibration table from the content of calibration.json."""
    shared = {key: calibration[key] for key in ("device", "device_kind")}
    return [shared | item for item in calibration["quantities"]]
