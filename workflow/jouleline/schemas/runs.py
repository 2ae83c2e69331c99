"""The runs table: one row per run and replicate. The pipeline writes it, and reads it from outside."""

from dataclasses import replace
from typing import Any

from jouleline.schemas import Column, Table
from jouleline.schemas.row import BY_NAME, PRECISIONS

ENERGY_SOURCES = ("nvml_counter", "nvml_power", "rapl", "estimate", "outside")
ENERGY_SCOPES = ("device", "node", "wall")
SCOPE_OF_SOURCE = {"nvml_counter": "device", "nvml_power": "device", "rapl": "node", "estimate": "node"}
"""What the joules of a source hold; those from outside may hold anything."""

STATUSES = ("ok", "oom", "failed")
VERDICTS = ("valid", "degraded", "invalid")

_C = Column
_COUNT = (1, 10**6)


def _of_row(name: str, **changes: Any) -> Column:
    """The column of a grid row, as a column of a runs table.

    Runs of other programs may be smaller than those measured here, so only numbers have bounds there. A column that a
    grid must give must be there too.
    """
    column = BY_NAME[name]
    low, high = column.bounds
    return replace(column, **{"bounds": (min(low, 1), high), **changes})


ASKED = (
    _C("run_id", "string", "", "Row id and replicate: a readable slug and a hash of the row's content"),
    _C("campaign", "string", "", "Campaign the run belongs to", "outside"),
    _C("family", "string", "", "Workload and device: the unit that never straddles a split"),
    _of_row("replicate", bounds=(0, 10**6)),
    _C("host", "string", "", "Name of the first node"),
    _C("device", "string", "", "Device type as its driver names it", required=True),
    _C("device_count", "int32", "devices", "Devices (ranks) of the run", required=True, bounds=_COUNT),
    _of_row("nodes"),
    _of_row("gpus_per_node", default=None, description="Devices used on each node; null: all on one node"),
    _of_row("tensor_parallel", default=None, required=True),
    _C("data_parallel", "int32", "", "Data-parallel degree: device_count / tensor_parallel", bounds=_COUNT),
    _of_row("zero_stage", default=None, required=True),
    *map(_of_row, ("model_type", "layers", "hidden", "heads", "intermediate", "vocab_size", "max_positions")),
    _of_row("num_labels", default=2, description="Classes of the classification head"),
    *map(_of_row, ("task", "seq_len", "micro_batch", "grad_accum")),
    _of_row("precision", default=None, required=True, choices=(*PRECISIONS, "tf32")),
    *map(_of_row, ("attention", "frozen_layers", "lora_rank", "lora_targets", "gradient_checkpointing")),
    *map(
        _of_row, ("optimizer", "kv_heads", "head_dim", "tied", "sliding_window", "image_size", "patch_size")
    ),
)
"""What is known before a run. Bounds are wide: they refuse what no run can have."""

_MEASURED = (
    _C("steps", "int64", "steps", "Optimizer steps in the measured window", required=True),
    _C("samples", "int64", "sequences", "Sequences in the measured window, over all devices"),
    _C("tokens", "int64", "tokens", "Padded tokens computed in the measured window, over all devices"),
    _C("time_s", "float64", "s", "Length of the measured window", required=True),
    _C("energy_j", "float64", "J", "Gross energy of the run's devices in the measured window", required=True),
    _C("energy_source", "string", "", "nvml_counter, nvml_power, rapl, estimate or outside", "outside"),
    _C(
        "energy_scope",
        "string",
        "",
        "What the joules hold: device, node (its host too) or wall (all that the node draws); null: not known",
    ),
    _C("energy_edge_u_j", "float64", "J", "Standard uncertainty from the window's edges and gaps"),
    _C("energy_gain_u_j", "float64", "J", "Systematic standard uncertainty of the sensor's gain"),
    _C("idle_power_w", "float64", "W", "Power of the run's devices while idle, before and after"),
    _C("host_energy_j", "float64", "J", "Energy of the hosts (RAPL) in the window; null where not metered"),
    _C("mean_power_w", "float64", "W", "energy_j / time_s"),
    _C("slurm_job_id", "string", "", "Slurm's job that the run was measured in; null without Slurm"),
    _C("slurm_energy_j", "float64", "J", "Slurm's own figure for the step (ConsumedEnergyRaw), whole nodes"),
    _C("loss_first", "float64", "", "Training loss of the first step"),
    _C("loss_last", "float64", "", "Training loss of the last measured step"),
    _C("accuracy", "float64", "", "Share of evaluation samples predicted right; null where not evaluated"),
    _C(
        "warmup_drift_rel",
        "float64",
        "",
        "Difference of the median step times of the warm-up's last two chunks; null: too short to say",
    ),
    _C("start_temperature_c", "float64", "°C", "Temperature of the hottest device before the run"),
    _C(
        "foreign_cores", "float64", "", "Cores' worth of the job's CPUs that others used, on its busiest node"
    ),
    _C("cpus_lost", "int32", "", "CPUs of the job that a rank could not use, at most"),
    _C("slow_settings", "string", "", "Environment variables that slow a run down, NAME=value"),
    _C("replicates", "int32", "", "Runs of this configuration whose energy is known"),
    _C("energy_cv", "float64", "", "Noise floor: coefficient of variation of their energy per token"),
    _C("time_cv", "float64", "", "The same of their time per step; both null for fewer than two"),
    _C("status", "string", "", "ok, oom or failed", "ok"),
    _C("verdict", "string", "", "valid, degraded or invalid", "valid"),
    _C("reasons", "string", "", "Reason codes of status and verdict, separated by commas", ""),
)

RUNS = Table(
    "runs",
    "One row per run and replicate: what was asked for, what was done, and what it cost.",
    (*ASKED, *_MEASURED),
)


_ANY = (-1e300, 1e300)

ASKED_BOUNDS = {column.name: column.bounds for column in ASKED if column.type not in ("string", "bool")}
"""Lowest and highest value of every number that is known before a run."""

MEASURED_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, 10**12),
    "samples": (1, 10**15),
    "tokens": (1, 10**18),
    "time_s": (1e-6, 1e10),
    "energy_j": (1e-6, 1e15),
    **dict.fromkeys(
        ("energy_edge_u_j", "energy_gain_u_j", "host_energy_j", "slurm_energy_j", "idle_power_w"), (0, 1e18)
    ),
    **dict.fromkeys(("mean_power_w", "energy_cv", "time_cv", "foreign_cores"), (0, 1e12)),
    "cpus_lost": (0, 10**6),
    "replicates": (0, 10**6),
    "accuracy": (0, 1),
    **dict.fromkeys(("loss_first", "loss_last", "warmup_drift_rel", "start_temperature_c"), _ANY),
}
"""The same of every number that a run shows; they hold for the rows that may be fitted."""

POWER_BOUNDS_W = (0.1, 1e5)
"""Mean power of one device (a rank, or a share of a node) in any run: beyond it a unit is wrong."""

USUAL_POWER_W = (2.0, 2e3)
"""The same as it nearly always is, in the median of a table: 300 W look like 0.3 W where ms or kJ stand for s and J."""
