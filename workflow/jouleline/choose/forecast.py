"""Time and energy of every candidate: by a fitted model, or from the device's data sheet alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from jouleline.choose import roof
from jouleline.choose.candidates import Columns
from jouleline.errors import UserError
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.fit import configurations, registry
from jouleline.model.machine import Machines

PARTS = ("compute", "memory", "communication", "host", "static")
"""Where joules go, in the order of a bar (see `model.roofline.law.energy_parts`)."""

SHARES = {"peak_flops": (0.10, 0.70), "memory": (0.30, 0.90), "link": (0.10, 0.80), "power": (0.4, 1.0)}
"""Shares of a data sheet's rates and power limit that training is taken to reach, drawn evenly in the logarithm."""
SHEET_DRAWS = 400
GIVE_LINK = (
    "no data sheet shows the links between nodes: give node_link_gb_s, the GB/s that a node sends to others"
)


@dataclass(frozen=True)
class Forecast:
    """What is known of K candidates: arrays [K], NaN where unknown.

    `bounds`: ends such as time_lo95_s. `draws`: (time, energy) [D, K] in D draws of the model's uncertainty, or None.
    `parts`: shares of the energy by PARTS, or None. `axes`: the quantities in which a candidate is outside the fitted
    range. `source` says who predicts. `note` says what its intervals are.
    """

    source: str
    note: str
    time_s: np.ndarray
    energy_j: np.ndarray
    bounds: dict[str, np.ndarray]
    draws: tuple[np.ndarray, np.ndarray] | None
    parts: dict[str, np.ndarray] | None
    axes: list[str]
    energy_source: str
    device: str
    machines: Machines
    why_not: str = "no prediction"  # the reason where nothing is known of a candidate

    def only(self, kept: np.ndarray) -> "Forecast":
        """The same, with nothing known of the candidates outside `kept` (mask [K])."""
        unknown = {name: np.where(kept, getattr(self, name), np.nan) for name in ("time_s", "energy_j")}
        return replace(self, **unknown)

    @property
    def known(self) -> np.ndarray:
        """Candidates with a predicted time and energy. Bool [K]."""
        return np.isfinite(self.time_s) & np.isfinite(self.energy_j)


_BOUNDS = tuple(
    f"{target}_{end}_{unit}"
    for target, unit in (("time", "s"), ("energy", "j"))
    for end in ("lo80", "hi80", "lo95", "hi95")
)


def by_model(fit: Mapping[str, Any], path: str, columns: Columns, where: str) -> Forecast:
    """The forecast of a shipped fit (model.json). Raises UserError as `configurations.predict_table` does."""
    devices = configurations.shipped(fit)["domain"]["categories"]["device"]
    if "device" not in columns and len(devices) > 1:
        raise UserError(f"{where}: the ask names no device; the model knows {', '.join(devices)}")
    fold, rows = configurations.configured(fit, columns, where)
    table = configurations.predicted(fit, fold, rows, configurations.PLAN)
    time, energy = (table[f"predicted_{name}"].astype(float) for name in ("time_s", "energy_j"))
    energy = np.where(table["identified"].astype(bool), energy, np.nan)
    draws = _draws(fit, fold, rows, time, energy)
    kept = "the share of the bootstrap's draws" if draws else "not known: this model keeps no draws"
    return Forecast(
        source=f"{fit['model']} of {path}",
        note=f"Intervals are the model's held-out ones. How sure a choice is: {kept}.",
        time_s=time,
        energy_j=energy,
        bounds={name: table[name].astype(float) for name in _BOUNDS},
        draws=draws,
        parts=_parts(fit, fold, rows),
        axes=table["extrapolation_axes"].tolist(),
        energy_source=str(fold["energy_source"]),
        device=str(rows.columns["device"][0]),
        machines=Machines(fit.get("calibration")),
        why_not=str(next(iter(set(table["reason"].tolist()) - {None}), "no prediction")),
    )


def _law(fit: Mapping[str, Any], fold: Mapping[str, Any]):
    """(the roofline of a model or None, its state, the context of its predictions)."""
    model = registry.make(fit["model"])
    law = getattr(model, "law", model)
    state = {**fold["state"], **{name: fold[name] for name in ("identified", "reason")}}
    return (law if hasattr(law, "parts") and "slots" in state else None), state, _context(fit)


def _context(fit: Mapping[str, Any]) -> Context:
    return Context(Machines(fit.get("calibration")), fit["options"])


def _draws(
    fit, fold, rows: Data, time: np.ndarray, energy: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Time and energy under each kept draw of the law. What a hybrid adds to the law is the same in all draws."""
    law, state, context = _law(fit, fold)
    if law is None or not fold.get("draws"):
        return None
    (centre,) = law.predict(state, rows, context)
    times, energies = [], []
    for slots in fold["draws"]:
        (drawn,) = law.predict({**state, "slots": slots}, rows, context)
        times.append(drawn.step_time_s / centre.step_time_s)
        energies.append(drawn.step_energy_j / centre.step_energy_j)
    return time * np.array(times), energy * np.array(energies)


def _parts(fit, fold, rows: Data) -> dict[str, np.ndarray] | None:
    law, state, context = _law(fit, fold)
    return law.parts(state, rows, context) if law is not None else None


def by_data_sheet(
    columns: Columns, device: str | None, where: str, node_link_gb_s: float | None = None
) -> Forecast:
    """The bounds from the device's data sheet: the slower of compute and memory, plus bytes sent; power times time.

    The reached rates and power are drawn from SHARES, the same for every candidate. A data sheet does not say what
    links between nodes do. Candidates on several nodes are known only where `node_link_gb_s` is given: what a node
    sends to others. Raises UserError for a device without a data sheet.
    """
    machines = Machines()
    if device is None or not machines.known(device):
        what = "names no device" if device is None else f"names {device!r}, which has no data sheet here"
        raise UserError(f"{where}: the ask {what}; {_known(machines, device)}; or give a fitted --model")
    devices = (columns["nodes"] * columns["gpus_per_node"]).astype(float)
    work = roof.work(columns)
    precision = str(columns["precision"][0])
    rates = {
        "memory": machines.get(device, "memory_bandwidth_triad"),
        "link": machines.get(device, "link_bandwidth"),
    }
    rates["peak_flops"] = machines.get(device, "peak_flops", precision)
    if rates["peak_flops"] is None:
        raise UserError(
            f"{where}: the data sheet of {device} has no rate of {precision} here; choose another precision, or give "
            "a fitted --model"
        )
    share = _shares()
    busy_s = np.maximum(
        work["compute_flop"] / (rates["peak_flops"] * share["peak_flops"]),
        work["memory_byte"] / (rates["memory"] * share["memory"]),
    )
    link = np.where(
        columns["nodes"].astype(int) == 1,
        rates["link"],
        _between_nodes(columns, rates["link"], node_link_gb_s),
    )
    sent_s = np.where(devices > 1, work["comm_byte"] / (link * share["link"]), 0.0)
    time = (busy_s + sent_s) * columns["steps"].astype(float)
    energy = time * devices * machines.get(device, "power_limit_w") * share["power"]
    bounds = {}
    for name, values in (("time_{}_s", time), ("energy_{}_j", energy)):
        for end, quantile in (("lo95", 0.025), ("lo80", 0.1), ("hi80", 0.9), ("hi95", 0.975)):
            bounds[name.format(end)] = np.quantile(values, quantile, axis=0)
    return Forecast(
        source=f"the data sheet of {device}",
        note="No model was fitted: intervals span the shares of its data sheet that training may reach. They are wide, "
        f"and no confidence intervals. Fit a model on runs of this device. Its figures: {machines.source(device)}."
        + _lacking(link),
        time_s=np.median(time, axis=0),
        energy_j=np.median(energy, axis=0),
        bounds=bounds,
        draws=(time, energy),
        parts=None,
        axes=["everything"] * len(devices),
        energy_source="data sheet",
        device=device,
        machines=machines,
    )


def _between_nodes(columns: Columns, link: float, node_link_gb_s: float | None) -> np.ndarray:
    """B/s of one device to other nodes, [K]. One ring crosses the network of a node; with tensor parallelism each of
    its ranks has one, and they share the network. NaN where the network is unknown."""
    rings = np.minimum(columns["tensor_parallel"].astype(float), columns["gpus_per_node"].astype(float))
    given = np.nan if node_link_gb_s is None else node_link_gb_s * 1e9
    return np.minimum(link, given / rings)


def _lacking(link: np.ndarray) -> str:
    """The key that is missing for candidates on several nodes, if there are any."""
    count = int(np.isnan(link).sum())
    return f" Not predicted: {count} candidates on several nodes; {GIVE_LINK}." if count else ""


def _known(machines: Machines, device: str | None) -> str:
    """The nearest of the known devices, else all of them."""
    names = {name.casefold(): name for name in machines.names()}
    near = get_close_matches((device or "").casefold(), names, n=2, cutoff=0.5)
    return (
        f"near it is {', '.join(names[one] for one in near)}"
        if near
        else f"known are {', '.join(names.values())}"
    )


def _shares() -> dict[str, np.ndarray]:
    """The shares of each draw, [D, 1]. They are Sobol points, so that few of them cover the range."""
    from scipy.stats import qmc

    points = qmc.Sobol(len(SHARES), scramble=True, rng=np.random.default_rng(0)).random(512)[:SHEET_DRAWS]
    low, high = np.log(np.array(list(SHARES.values()))).T
    drawn = np.exp(low + points * (high - low))
    return {name: drawn[:, [i]] for i, name in enumerate(SHARES)}
