"""The calibration of a node: every quantity that is measured of a device before any training."""

from typing import Any

from jouleline.schemas import Column, Table

# name: (unit, meaning). `size` is FLOP per launch for matmul_flops, ranks for links, bytes for memory.
QUANTITIES = {
    "peak_flops": ("FLOP/s", "Best matrix-multiply rate over all sizes, per precision"),
    "matmul_flops": ("FLOP/s", "Matrix-multiply rate at one size: the saturation curve"),
    "half_saturation_flop": ("FLOP", "FLOP per launch at half of the fitted peak"),
    "memory_bandwidth_copy": ("B/s", "a = b, reading and writing counted"),
    "memory_bandwidth_triad": ("B/s", "a = b + s c, reading twice and writing counted"),
    "link_bandwidth_all_reduce": ("B/s", "Ring bytes sent per device and second in a large all-reduce"),
    "link_bandwidth_all_gather": ("B/s", "The same of an all-gather"),
    "link_bandwidth_reduce_scatter": ("B/s", "The same of a reduce-scatter"),
    "link_latency_all_reduce": ("s", "Time of an all-reduce of a few bytes"),
    "link_latency_all_gather": ("s", "Time of an all-gather of a few bytes"),
    "link_latency_reduce_scatter": ("s", "Time of a reduce-scatter of a few bytes"),
    "launch_overhead_s": ("s", "Time per tiny operation, many in a row without waiting"),
    "host_overhead_s": ("s", "Host time per tiny linear layer, forward and backward"),
    "idle_power_w": ("W", "Bare idle: no process holds the device"),
    "context_idle_power_w": ("W", "A process holds the device and does nothing"),
    "active_wait_comm_power_w": ("W", "Per device, while all devices only communicate"),
    "active_wait_host_power_w": ("W", "While the device waits for the host between tiny operations"),
    "memory_bound_power_w": ("W", "While the triad runs"),
    "compute_bound_power_w": ("W", "While large matrix multiplications run"),
}

CALIBRATION = Table(
    "calibration",
    "What a device can do and what it draws, measured before the campaign: a row per quantity, precision and size.",
    (
        Column("device", "string", "", "Device type as its driver names it", required=True),
        Column("device_kind", "string", "", "cpu or cuda", required=True),
        Column("quantity", "string", "", "One of: " + ", ".join(QUANTITIES), required=True),
        Column("precision", "string", "", "fp32, bf16 or fp16; null where it does not matter"),
        Column("size", "float64", "", "FLOP per launch, byte or ranks, as the quantity has it"),
        Column("nodes", "int32", "", "Nodes that a link spans; 1: within a node; null where it is no link"),
        Column("value", "float64", "", "Median of the repeats; null where it cannot be had", required=True),
        Column("unit", "string", "", "Unit of the value", required=True),
        Column(
            "u_rel", "float64", "", "Relative standard uncertainty: spread of the repeats, or of the meter"
        ),
        Column("n", "int32", "", "Repeats"),
        Column("method", "string", "", "How it was measured; 'estimate' where a power is declared"),
    ),
)


def entry(quantity: str, value: float | None, method: str, **more: Any) -> dict[str, Any]:
    """One row of the calibration table without the device. What neither the arguments nor `more` give is None."""
    unit = QUANTITIES[quantity][0]
    blank = {"precision": None, "size": None, "nodes": None, "u_rel": None, "n": None}
    return {"quantity": quantity, "value": value, "unit": unit, "method": method} | blank | more
