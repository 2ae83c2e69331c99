"""Which parameters the roofline law has for a table, where each is centred, and how wide its prior is.

A slot of the law (for example the achieved peak FLOP/s) has one common column: a log ratio to what calibration or the
data sheet says. Where the table has several groups (devices, precisions, links), each of them also has a small
deviation. So a device that was never measured is predicted from its calibration times the ratio that the measured
devices showed, and a few runs move only its own deviation. Links between nodes are centred on the calibration over the
same number of nodes. All calibrated numbers of nodes share one deviation.
"""

from dataclasses import dataclass, field

import numpy as np

from jouleline.model.features import Data
from jouleline.model.machine import Machines
from jouleline.model.roofline.law import ABSENT, SLOTS

CALIBRATED_SD = float(np.log(2))
UNKNOWN_SD = 2.0
DEVIATION_SD = 0.3
COMPARABLE_SD = 0.5
STRANGER_SD = 1.0
"""Deviations of groups that are not calibrated, with and without a ratio between the data sheets of the devices."""
# Prior centre and standard deviation of the slots that no calibration measures, as unbounded values. Attention: fused
# kernels reach 25 to 40 % of the peak, other products 80 to 90 % (Dao, FlashAttention-2, 2023).
_SHAPE_PRIORS = {
    "attention_weight": (float(np.log(2.5)), float(np.log(2))),
    "attention_padding": (0.0, 1.5),
    "compute_memory_exponent": (-1.5, 1.0),
    "device_host_exponent": (-1.5, 1.0),
    "overlap": (0.0, 1.5),
    "contention": (0.0, 0.5),
}
_GROUPS = {
    "peak_flops": ("device", "precision"),
    "compute_energy_j_per_flop": ("device", "precision"),
    "half_saturation_flop": ("device",),
    "memory_bandwidth": ("device",),
    "memory_energy_j_per_byte": ("device",),
    "host_fixed_s": ("device",),
    "host_layer_s": ("device",),
    "static_power_w": ("device",),
    "node_power_w": ("device",),
    "collective_latency_s": ("device", "span"),
    "link_bandwidth": ("device", "span"),
    "link_energy_j_per_byte": ("device", "link"),
}
# Signs by slot. A device of which nothing is known is fast or slow as a whole, and takes much or little power as a
# whole.
_TRAITS = {
    "peak_flops": {"speed": 1},
    "memory_bandwidth": {"speed": 1},
    "static_power_w": {"power": 1},
    "compute_energy_j_per_flop": {"power": 1, "speed": -1},
    "memory_energy_j_per_byte": {"power": 1, "speed": -1},
}
_HOST = ("host_fixed_s", "host_layer_s")
"""A host is slow for a step and for its layers alike, apart from a difference with the sd of CALIBRATED_SD."""
_COMMUNICATION = ("collective_latency_s", "link_bandwidth", "overlap", "link_energy_j_per_byte")
ABLATIONS = {
    "no_memory": ("memory_bandwidth", "memory_energy_j_per_byte"),
    "no_communication": _COMMUNICATION,
    "no_static": ("static_power_w", "node_power_w"),
    "no_dynamic": ("compute_energy_j_per_flop", "memory_energy_j_per_byte", "link_energy_j_per_byte"),
    "no_host": ("host_fixed_s", "host_layer_s"),
    "no_saturation": ("half_saturation_flop",),
    "hard_max": ("compute_memory_exponent", "device_host_exponent"),
}


@dataclass(frozen=True)
class Options:
    """How the roofline is fitted. `ablations` are names of ABLATIONS, plus energy_only, no_priors, paper_proxies."""

    ablations: tuple[str, ...] = ()
    calibration_priors: bool = True
    fixed_time: bool = False
    starts: int = 64
    seed: int = 0


@dataclass
class Slot:
    """One slot over some rows. `group` [R] holds codes into `labels`. `devices` names the device of each group.

    `centres` is, per group, what calibration or the data sheet says (NaN: nothing). `scales` is, per group, what the
    data sheets say of ratios between devices (log; NaN: nothing). With it, a slot that was fitted on other devices is
    carried over to this one. `between` names a group for each group of links between nodes: that of the same device's
    uncalibrated numbers of nodes. It is None for any other group. `precisions` are those of the groups ("" where the
    slot does not depend on precision). `measured` says of each group whether a calibration measured its peak. `loads`
    says, by column of the fit, how much of it is in each group's log ratio to its centre.
    """

    name: str
    labels: list[str]
    group: np.ndarray
    centres: np.ndarray
    scales: np.ndarray
    active: bool
    between: list[str | None]
    devices: list[str]
    precisions: list[str]
    measured: list[bool]
    loads: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def known(self) -> np.ndarray:
        """Which groups have a centre from a calibration or a data sheet. Bool [groups]."""
        return np.isfinite(self.centres)


@dataclass(frozen=True)
class Structure:
    """The columns of a fit: slots over its rows, the prior sd of each column, and the names of the columns.

    `deviations` says which columns are deviations of devices and precisions from what calibration or data sheets say.
    Their size is learnt (see `hierarchy`).
    """

    slots: dict[str, Slot]
    prior_sd: np.ndarray
    names: list[str]
    spread: np.ndarray
    deviations: np.ndarray

    def sds(self, spread: np.ndarray) -> np.ndarray:
        """The prior sds [..., P] where deviations are `spread` [...] times as large as their priors say."""
        return self.prior_sd * np.where(self.deviations, np.asarray(spread)[..., None], 1.0)


class _Columns:
    """The columns while they are laid out, one slot after the other."""

    def __init__(self):
        self.index: dict[str, int] = {}
        self.prior_sd: list[float] = []
        self.deviations: list[bool] = []

    def load(self, slot: Slot, name: str, sd: float, share: np.ndarray, deviation: bool = False) -> None:
        """Add the column `name` to a slot's groups. It is made with this prior where it does not exist yet."""
        if name not in self.index:
            self.index[name] = len(self.prior_sd)
            self.prior_sd.append(sd)
            self.deviations.append(deviation)
        column = self.index[name]
        slot.loads[column] = slot.loads.get(column, 0.0) + share


def build(
    data: Data, machines: Machines, options: Options, fitted: frozenset[str] | None = None
) -> Structure:
    """Lay out the columns for every row of `data`. Only features are read, and no target.

    `fitted` names the slots of a fit that is to predict these rows. These slots stay, also where they have no effect on
    the rows. A node's own power or a fixed time is not added to a fit that was made without it.
    """
    key = ("structure", options, machines, fitted)  # the object, because another may get the same id
    if key not in data.memo:
        data.memo[key] = _build(data, machines, options, fitted)
    return data.memo[key]


def _build(data: Data, machines: Machines, options: Options, fitted: frozenset[str] | None) -> Structure:
    without = _without_effect(data, machines, options)
    if fitted is not None:
        without = (without | {"node_power_w", "fixed_time_s"}) - fitted
    absent = without | {slot for name in options.ablations for slot in ABLATIONS.get(name, ())}
    slots, columns = {}, _Columns()
    for name in SLOTS:
        slot = slots[name] = _slot(name, data, machines, options, name not in absent)
        if slot.active:
            _lay_out(slot, columns)
    prior_sd = np.array(columns.prior_sd)
    spread = np.where(prior_sd >= UNKNOWN_SD, np.log(20), 2 * prior_sd)
    deviations = np.array(columns.deviations, dtype=bool)
    return Structure(slots, prior_sd, list(columns.index), spread, deviations)


def _lay_out(slot: Slot, columns: _Columns) -> None:
    """What the groups of a slot have in common, and the deviation of each. A deviation is as wide as the group is
    unknown."""
    everywhere = np.ones(len(slot.labels))
    common = CALIBRATED_SD if slot.known.any() or slot.name in _HOST else UNKNOWN_SD
    if slot.name in _HOST:
        columns.load(slot, "host", UNKNOWN_SD, everywhere)
    columns.load(slot, slot.name, _SHAPE_PRIORS.get(slot.name, (0.0, common))[1], everywhere)
    shared = np.array(_shared(slot), dtype=object)
    if len(set(shared.tolist())) < 2:
        return
    comparable = np.isfinite(slot.scales)
    sd = np.where(slot.known, DEVIATION_SD, np.where(comparable, COMPARABLE_SD, STRANGER_SD))
    traits = _TRAITS.get(slot.name, {}) if len(set(slot.devices)) > 1 else {}
    for code in np.flatnonzero(~slot.known & ~comparable) if traits else ():
        one = (np.arange(len(sd)) == code).astype(float)
        for trait, sign in traits.items():
            columns.load(slot, f"{trait}[{slot.devices[code]}]", STRANGER_SD, sign * one)
        if slot.devices.count(slot.devices[code]) == 1:  # several precisions differ by more
            sd[code] = DEVIATION_SD
    several = max(len(set(slot.devices)), len(set(slot.precisions))) > 1
    for label in dict.fromkeys(shared.tolist()):
        own = shared == label
        learnt = several and bool((slot.known | comparable)[own].all())
        columns.load(slot, f"{slot.name}[{label}]", float(sd[own].max()), own.astype(float), learnt)


def _shared(slot: Slot) -> list[str]:
    """Per group, the name of its deviation. All calibrated links between nodes share one, for any number of nodes."""
    return [
        f"{between}, calibrated" if between and np.isfinite(centre) else label
        for label, centre, between in zip(slot.labels, slot.centres, slot.between, strict=True)
    ]


def _without_effect(data: Data, machines: Machines, options: Options) -> set[str]:
    """Slots that have no effect on any row of the table.

    These are communication on one device, contention on devices other than CPUs, and a node's own power. The last has
    no effect where the meter reads only devices, or where every node has the same number of them.
    """
    absent = set() if options.fixed_time else {"fixed_time_s"}
    whole_nodes = {"node", "wall"} & set(data.labels("energy_scope")[0])
    if not whole_nodes or len(np.unique(data.columns["gpus_per_node"])) < 2:
        absent.add("node_power_w")
    calls = data.proxies["comm_calls"]
    if not (calls > 0).any():
        absent |= set(_COMMUNICATION)
    elif not (calls > data.proxies["comm_calls_tp"]).any():
        absent.add("overlap")
    devices, index = data.labels("device")
    on_cpu = np.array([machines.is_cpu(device) for device in devices])[index]
    if not (on_cpu & (data.columns["gpus_per_node"] > 1)).any():
        absent.add("contention")
    return absent


def _slot(name: str, data: Data, machines: Machines, options: Options, active: bool) -> Slot:
    rows = len(data)
    if not active or name in _SHAPE_PRIORS:
        centre = np.array([_fixed(name, active)])
        return Slot(
            name, ["all"], np.zeros(rows, dtype=int), centre, np.zeros(1), active, [None], [""], [""], [False]
        )
    labels, group, members = _groups(
        data, machines if options.calibration_priors else None, _GROUPS.get(name, ())
    )
    centres = [_known(name, machines, *member) for member in members]
    logs = [np.log(value) if value and options.calibration_priors else np.nan for value in centres]
    scales = [_scale(name, machines, *member) for member in members]
    spans = "span" in _GROUPS.get(name, ())
    between = [f"{device}, {_LINKS[0]}" if spans and nodes != 1 else None for device, _, nodes in members]
    devices = [device for device, _, _ in members]
    precisions = [precision if "precision" in _GROUPS.get(name, ()) else "" for _, precision, _ in members]
    measured = [machines.measured(device, "peak_flops", one) is not None for device, one, _ in members]
    known = (np.array(logs), np.array(scales))
    return Slot(name, labels, group, *known, True, between, devices, precisions, measured)


_LINKS = {1: "within node", 0: "between nodes"}
"""Names of links by number of nodes. 0 stands for every number of nodes between which they were not calibrated."""


def _groups(
    data: Data, machines: Machines | None, keys: tuple[str, ...]
) -> tuple[list[str], np.ndarray, list[tuple[str, str, int]]]:
    """(labels, each row's index among them, (device, precision, nodes) of each group), kept with the data.

    Links are distinct by `link`, which is within a node or not. Or they are distinct by `span`, the number of nodes
    where it was calibrated (else 0).
    """
    memo = ("groups", keys, machines)
    if memo not in data.memo:
        parts = {"device": data.labels("device"), "precision": data.labels("precision")}
        calibrated = machines and "span" in keys
        nodes = _calibrated_nodes(data, machines) if calibrated else np.where(data.between_nodes, 0, 1)
        counts, index = np.unique(nodes, return_inverse=True)
        parts["span" if "span" in keys else "link"] = (counts.tolist(), index)
        code = np.zeros(len(data), dtype=int)
        for key in keys:
            code = code * len(parts[key][0]) + parts[key][1]
        _, first, group = np.unique(code, return_index=True, return_inverse=True)
        members = [tuple(values[index[row]] for values, index in parts.values()) for row in first]
        named = [
            ", ".join(
                m if isinstance(m, str) else _LINKS.get(m, f"{m} nodes")
                for key, m in zip(parts, member, strict=True)
                if key in keys
            )
            for member in members
        ]
        order = sorted(range(len(named)), key=named.__getitem__)
        rank = np.argsort(order)
        data.memo[memo] = ([named[i] or "all" for i in order], rank[group], [members[i] for i in order])
    return data.memo[memo]


def _calibrated_nodes(data: Data, machines: Machines) -> np.ndarray:
    """The number of nodes of each row. 0 where the device has no calibrated links between so many nodes. Int [rows]."""
    devices, index = data.labels("device")
    nodes = data.columns["nodes"].astype(int)
    known = [machines.calibrated_nodes(device) | {1} for device in devices]
    return np.array(
        [n if n in known[code] else 0 for n, code in zip(nodes.tolist(), index.tolist())], dtype=int
    )


def _fixed(name: str, active: bool) -> float:
    """Centre of a slot without groups. For a slot that is switched off, the value at which its term vanishes."""
    if active:
        return _SHAPE_PRIORS[name][0]
    if name in {"memory_bandwidth", "link_bandwidth"}:
        return -ABSENT["log"]
    if name in {"compute_memory_exponent", "device_host_exponent", "overlap"}:
        return 50.0
    return 0.0 if name == "attention_weight" else ABSENT[SLOTS[name][1]]


def _scale(name: str, machines: Machines, device: str, precision: str, nodes: int) -> float:
    """Log of the quantity that a slot is proportional to across devices, or NaN.

    Power is proportional to the power limit. Energy per FLOP and byte is proportional to the power limit over the peak
    rate. The latencies of the host and of the library stay as they are.
    """
    if name in {"host_fixed_s", "host_layer_s", "half_saturation_flop"}:
        return 0.0
    if name == "collective_latency_s":
        return 0.0 if nodes == 1 else np.nan
    limit = machines.get(device, "power_limit_w")
    rate = {
        "static_power_w": 1.0,
        "compute_energy_j_per_flop": machines.get(device, "peak_flops", precision),
        "memory_energy_j_per_byte": machines.first(
            device, ("memory_bandwidth_triad", "memory_bandwidth_copy")
        ),
        "link_energy_j_per_byte": 1.0 if nodes == 1 else None,
    }.get(name)
    return float(np.log(limit / rate)) if limit and rate else np.nan


def _known(name: str, machines: Machines, device: str, precision: str, nodes: int) -> float | None:
    """The value of a slot that the calibration or the data sheet gives, or None."""

    def get(*quantities):
        return machines.first(device, quantities, precision)

    def of_link(kind):
        names = (f"link_{kind}_all_reduce", f"link_{kind}_all_gather")
        return machines.first(device, names, nodes=nodes) if nodes else None

    static = get(
        "active_wait_comm_power_w", "active_wait_host_power_w", "context_idle_power_w", "idle_power_w"
    )
    peak, memory = get("peak_flops"), get("memory_bandwidth_triad", "memory_bandwidth_copy")
    simple = {
        "peak_flops": peak,
        "memory_bandwidth": memory,
        "half_saturation_flop": get("half_saturation_flop"),
        "static_power_w": static,
        "node_power_w": get("idle_power_w"),
        "link_bandwidth": of_link("bandwidth"),
        "collective_latency_s": of_link("latency"),
    }
    if name in simple:
        return simple[name]
    bound = {
        "compute_energy_j_per_flop": ("compute_bound_power_w", peak),
        "memory_energy_j_per_byte": ("memory_bound_power_w", memory),
    }
    if name not in bound or not static:
        return None
    power, rate = get(bound[name][0]), bound[name][1]
    return (power - static) / rate if power and rate and power > static else None
