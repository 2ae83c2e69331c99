"""The roofline law of one step: time and energy from proxies and machine constants, with analytic derivatives.

The law has C FLOP, M byte and X byte sent per device and step, K collectives, x FLOP per matrix-multiply launch, L
layers, a forward passes per step and N devices:

    t_c = C / (F u(x)),  u(x) = x / (x + x_half);   t_m = M / BW;   t_dev = (t_c^p + t_m^p)^(1/p)
    t_host = a (h0 + hL L);   t_busy = (t_dev^q + t_host^q)^(1/q)
    T_x = K latency + X / link;  t_exposed = T_x for tensor parallel, which nothing overlaps, and for data parallel
    t_exposed = s [softplus((T_x - w t_dev) / s) - softplus(-w t_dev / s)],  s = 0.1 t_dev:  0 at T_x = 0
    t = t_busy + t_exposed (+ t_fixed / steps)
    E = N (P_s t + e_c C + e_m M + e_x X) (+ nodes P_node t, where the meter's boundary holds whole nodes)

F is the achieved peak: the hardware peak times the best utilisation u_max. Only their product enters the law. In C,
attention's two products count `attention_weight` times. Each consists of as many small products as there are heads, and
these reach a smaller share of the peak than other products. Where tiles are r times as wide as a head, they count
another r^g times, g = `attention_padding`. On CPUs the ranks of one node share caches and memory: t_dev is multiplied
by (ranks per node)^contention.
"""

import numpy as np

# name: (unit, transform). A transform maps an unbounded value x: log gives exp(x), linear gives x, and a pair gives a
# logit between its two values.
SLOTS = {
    "peak_flops": ("FLOP/s", "log"),
    "half_saturation_flop": ("FLOP", "log"),
    "attention_weight": ("", "log"),
    "attention_padding": ("", (0.0, 1.0)),
    "memory_bandwidth": ("B/s", "log"),
    "compute_memory_exponent": ("", (1.0, 12.0)),
    "device_host_exponent": ("", (1.0, 12.0)),
    "host_fixed_s": ("s", "log"),
    "host_layer_s": ("s", "log"),
    "collective_latency_s": ("s", "log"),
    "link_bandwidth": ("B/s", "log"),
    "overlap": ("", (0.0, 1.0)),
    "fixed_time_s": ("s", "log"),
    "contention": ("", "linear"),
    "static_power_w": ("W", "log"),
    "node_power_w": ("W", "log"),
    "compute_energy_j_per_flop": ("J/FLOP", "log"),
    "memory_energy_j_per_byte": ("J/B", "log"),
    "link_energy_j_per_byte": ("J/B", "log"),
}

TIME_SLOTS = tuple(SLOTS)[:14]
ABSENT = {"log": -700.0, "linear": 0.0}
"""The value of a slot whose term is switched off. exp(-700) is 0 compared with anything measured."""

_SOFTNESS = 0.1

_ATTENTION = ("attention_weight", "attention_padding")


def natural(slot: str, value):
    """The physical value of a slot's unbounded value."""
    transform = SLOTS[slot][1]
    if transform == "log":
        return np.exp(value)
    if transform == "linear":
        return value
    low, high = transform
    return low + (high - low) * _expit(value)


def _expit(value):
    return 0.5 * (1 + np.tanh(0.5 * value))


def _softplus(value):
    return np.logaddexp(0, value)


def inputs(data, paper_proxies: bool = False) -> dict[str, np.ndarray]:
    """The arrays of the law for some rows, each [R]. With `paper_proxies`, C and M per device are the published
    ones."""
    p, devices = data.proxies, data.devices
    flop = p["paper_compute"] / devices if paper_proxies else data.flop
    byte = p["paper_memory"] / devices if paper_proxies else data.byte
    return {
        "log_flop": np.log(flop),
        "attention_share": np.zeros(len(data)) if paper_proxies else p["attention_flop"] / flop,
        "log_padding": np.log(p["attention_tile_flop"] / p["attention_flop"]),
        "log_launch": np.log(data.launch_flop),
        "log_byte": np.log(byte),
        "flop": flop,
        "byte": byte,
        "sent": p["comm_byte"],
        "sent_tp": p["comm_byte_tp"],
        "calls_tp": p["comm_calls_tp"],
        "sent_dp": p["comm_byte"] - p["comm_byte_tp"],
        "calls_dp": p["comm_calls"] - p["comm_calls_tp"],
        "log_layers": np.log(data.columns["layers"].astype(float)),
        "log_passes": np.log(data.columns["grad_accum"].astype(float)),
        "log_ranks": np.log(data.columns["gpus_per_node"].astype(float)),
        "steps": data.steps,
        "nodes_per_device": data.columns["nodes"] / devices,
        "devices": devices,
    }


def step(values: dict[str, np.ndarray], rows: dict[str, np.ndarray]):
    """Log step time and log step energy, and their derivatives with respect to each slot's unbounded value.

    `values`: slot -> unbounded values that broadcast to [..., R]. Returns (log_t, log_e, d_time, d_energy). The
    derivatives are dicts slot -> [..., R]. A slot without effect on time is missing in d_time.
    """
    work = _work(values, rows)
    busy = _busy_time(values, rows, work)
    time, d_time = _step_time(values, rows, busy)
    for slot, derivative in d_time.items():
        d_time[slot] = derivative / time
    powers = {
        "static_power_w": np.exp(values["static_power_w"]) * time,
        "node_power_w": np.exp(values["node_power_w"]) * rows["nodes_per_device"] * time,
        "compute_energy_j_per_flop": np.exp(values["compute_energy_j_per_flop"] + work["log"]),
        "memory_energy_j_per_byte": np.exp(values["memory_energy_j_per_byte"]) * rows["byte"],
        "link_energy_j_per_byte": np.exp(values["link_energy_j_per_byte"]) * rows["sent"],
    }
    energy = sum(powers.values())
    static_share = (powers["static_power_w"] + powers["node_power_w"]) / energy
    d_energy = {slot: static_share * derivative for slot, derivative in d_time.items()}
    d_energy |= {slot: joule / energy for slot, joule in powers.items()}
    for slot in _ATTENTION:
        d_energy[slot] = d_energy[slot] + d_energy["compute_energy_j_per_flop"] * work[slot]
    return np.log(time), np.log(energy * rows["devices"]), d_time, d_energy


def energy_parts(values: dict[str, np.ndarray], rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where the energy of each row goes, as shares that add up to 1.

    compute, memory: energy per FLOP and byte. communication: energy per byte sent, and static power while a device
    waits for communication that is not hidden. host: static power while a device waits for its host. static: the rest
    of the static power.
    """
    d_energy = step(values, rows)[3]
    busy = _busy_time(values, rows, _work(values, rows))
    time, derivatives = _step_time(values, rows, busy)
    # Only rounding can make either of them negative.
    waiting = np.maximum(time - np.exp(busy["busy"]) - derivatives["fixed_time_s"], 0)
    host = np.maximum(np.exp(busy["busy"]) - np.exp(busy["device"]), 0)
    static = d_energy["static_power_w"] + d_energy["node_power_w"]
    communication, by_host = static * waiting / time, static * host / time
    return {
        "compute": d_energy["compute_energy_j_per_flop"],
        "memory": d_energy["memory_energy_j_per_byte"],
        "communication": d_energy["link_energy_j_per_byte"] + communication,
        "host": by_host,
        "static": static - communication - by_host,
    }


def static_share(values: dict[str, np.ndarray], rows: dict[str, np.ndarray]) -> np.ndarray:
    """phi of each row: the share of its energy that is static power times time."""
    d_energy = step(values, rows)[3]
    return d_energy["static_power_w"] + d_energy["node_power_w"]


def _work(values, rows) -> dict[str, np.ndarray]:
    """Log of C with the weight of attention's products in it, and the share of these products in C."""
    padding = _expit(values["attention_padding"])
    weighed = rows["attention_share"] * np.exp(values["attention_weight"] + padding * rows["log_padding"])
    whole = 1 - rows["attention_share"] + weighed
    share = weighed / whole
    slope = padding * (1 - padding) * rows["log_padding"]
    return {
        "log": rows["log_flop"] + np.log(whole),
        "attention_weight": share,
        "attention_padding": share * slope,
    }


def _busy_time(values, rows, work) -> dict[str, np.ndarray]:
    """t_dev and t_busy in logs, with the shares of the smooth maximum that the derivatives need."""
    p, q = (
        natural("compute_memory_exponent", values["compute_memory_exponent"]),
        natural("device_host_exponent", values["device_host_exponent"]),
    )
    compute = (
        work["log"] - values["peak_flops"] + _softplus(values["half_saturation_flop"] - rows["log_launch"])
    )
    memory = rows["log_byte"] - values["memory_bandwidth"]
    joined = np.logaddexp(p * compute, p * memory) / p
    device = joined + values["contention"] * rows["log_ranks"]
    host_layers = values["host_layer_s"] + rows["log_layers"]
    host = np.logaddexp(values["host_fixed_s"], host_layers) + rows["log_passes"]
    busy = np.logaddexp(q * device, q * host) / q
    compute_share, device_share = _expit(p * (compute - memory)), _expit(q * (device - host))
    return {
        "device": device,
        "busy": busy,
        "compute_share": compute_share,
        "device_share": device_share,
        "fixed_share": _expit(values["host_fixed_s"] - host_layers),
        **{slot: work[slot] for slot in _ATTENTION},
        "unsaturated": _expit(values["half_saturation_flop"] - rows["log_launch"]),
        "d_p": (compute_share * compute + (1 - compute_share) * memory - joined)
        / p
        * _bounded_slope(values, "compute_memory_exponent"),
        "d_q": (device_share * device + (1 - device_share) * host - busy)
        / q
        * _bounded_slope(values, "device_host_exponent"),
    }


def _bounded_slope(values, slot: str):
    low, high = SLOTS[slot][1]
    share = _expit(values[slot])
    return (high - low) * share * (1 - share)


def _step_time(values, rows, shares) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """t [..., R] in seconds, and dt by slot."""
    device, busy = np.exp(shares["device"]), np.exp(shares["busy"])
    latency, per_byte = np.exp(values["collective_latency_s"]), np.exp(-values["link_bandwidth"])
    blocking = rows["calls_tp"] * latency + rows["sent_tp"] * per_byte
    overlap = _expit(values["overlap"])
    ratio = (rows["calls_dp"] * latency + rows["sent_dp"] * per_byte) / device
    ahead, behind = (ratio - overlap) / _SOFTNESS, -overlap / _SOFTNESS
    exposed = _SOFTNESS * (_softplus(ahead) - _softplus(behind))
    d_ratio = _expit(ahead)
    fixed = np.exp(values["fixed_time_s"]) / rows["steps"]
    time = busy + blocking + device * exposed + fixed
    d_device = busy * shares["device_share"] + device * (exposed - ratio * d_ratio)
    host = busy * (1 - shares["device_share"])
    derivatives = {
        "peak_flops": -d_device * shares["compute_share"],
        "half_saturation_flop": d_device * shares["compute_share"] * shares["unsaturated"],
        **{slot: d_device * shares["compute_share"] * shares[slot] for slot in _ATTENTION},
        "memory_bandwidth": -d_device * (1 - shares["compute_share"]),
        "compute_memory_exponent": d_device * shares["d_p"],
        "device_host_exponent": busy * shares["d_q"],
        "host_fixed_s": host * shares["fixed_share"],
        "host_layer_s": host * (1 - shares["fixed_share"]),
        "collective_latency_s": (rows["calls_tp"] + d_ratio * rows["calls_dp"]) * latency,
        "link_bandwidth": -(rows["sent_tp"] + d_ratio * rows["sent_dp"]) * per_byte,
        "overlap": device * (_expit(behind) - d_ratio) * overlap * (1 - overlap),
        "fixed_time_s": fixed * np.ones_like(time),
        "contention": d_device * rows["log_ranks"],
    }
    return time, derivatives
