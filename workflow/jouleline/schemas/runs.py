"""The runs table: one row per run and replicate. What the pipeline writes, and what it reads from outside."""

from jouleline.schemas import Column, Table

ENERGY_SOURCES = ("nvml_counter", "nvml_power", "rapl", "estimate", "outside")
STATUSES = ("ok", "oom", "failed")
VERDICTS = ("valid", "degraded", "invalid")

_C = Column

RUNS = Table(
    "runs",
    "One row per run and replicate: what was asked for, what was done, and what it cost.",
    (
        _C("run_id", "string", "", "Row id and replicate: a readable slug and a hash of the row's content"),
        _C("campaign", "string", "", "Campaign the run belongs to", "outside"),
        _C("family", "string", "", "Workload and device: the unit that never straddles a split"),
        _C("replicate", "int32", "", "Number of the repetition, from 1", 1),
        _C("host", "string", "", "Name of the first node"),
        _C("device", "string", "", "Device type as its driver names it", required=True),
        _C("device_count", "int32", "devices", "Devices (ranks) of the run", required=True),
        _C("nodes", "int32", "nodes", "Nodes of the run", 1),
        _C("gpus_per_node", "int32", "devices", "Devices used on each node; null: all on one node"),
        _C("tensor_parallel", "int32", "", "Tensor-parallel degree", required=True),
        _C("data_parallel", "int32", "", "Data-parallel degree: device_count / tensor_parallel"),
        _C(
            "zero_stage",
            "int32",
            "",
            "DeepSpeed ZeRO stage; 3 is fully sharded data parallelism",
            required=True,
        ),
        _C("model_type", "string", "", "Model family of transformers", "bert"),
        _C("layers", "int32", "", "Encoder layers (L)", required=True),
        _C("hidden", "int32", "", "Hidden width (d)", required=True),
        _C("heads", "int32", "", "Attention heads (h)", required=True),
        _C("intermediate", "int32", "", "Feed-forward width (ff)", required=True),
        _C("vocab_size", "int32", "", "Vocabulary (V)", 30522),
        _C("max_positions", "int32", "", "Position embeddings (P)", 512),
        _C("num_labels", "int32", "", "Classes of the classification head", 2),
        _C("task", "string", "", "Head that is trained: classification, qa or mlm", "classification"),
        _C("seq_len", "int32", "tokens", "Padded sequence length (S)", required=True),
        _C("micro_batch", "int32", "sequences", "Sequences per device and forward pass (B)", required=True),
        _C("grad_accum", "int32", "", "Forward passes per optimizer step", 1),
        _C("precision", "string", "", "fp32, bf16 or fp16", required=True),
        _C("attention", "string", "", "Attention kernel: sdpa (fused) or eager", "sdpa"),
        _C("frozen_layers", "int32", "", "Encoder layers frozen from the bottom", 0),
        _C("lora_rank", "int32", "", "Rank of the LoRA adapters; 0 is full fine-tuning", 0),
        _C("lora_targets", "string", "", "Modules with adapters, separated by commas", "query,value"),
        _C("gradient_checkpointing", "bool", "", "Activations recomputed in the backward pass", False),
        _C("optimizer", "string", "", "adamw or sgd", "adamw"),
        _C("steps", "int64", "steps", "Optimizer steps in the measured window", required=True),
        _C("samples", "int64", "sequences", "Sequences in the measured window, over all devices"),
        _C("tokens", "int64", "tokens", "Padded tokens computed in the measured window, over all devices"),
        _C("time_s", "float64", "s", "Length of the measured window", required=True),
        _C(
            "energy_j",
            "float64",
            "J",
            "Gross energy of the run's devices in the measured window",
            required=True,
        ),
        _C("energy_source", "string", "", "nvml_counter, nvml_power, rapl, estimate or outside", "outside"),
        _C("energy_edge_u_j", "float64", "J", "Standard uncertainty from the window's edges and gaps"),
        _C("energy_gain_u_j", "float64", "J", "Systematic standard uncertainty of the sensor's gain"),
        _C("idle_power_w", "float64", "W", "Power of the run's devices while idle, before and after"),
        _C(
            "host_energy_j",
            "float64",
            "J",
            "Energy of the hosts (RAPL) in the window; null where not metered",
        ),
        _C("mean_power_w", "float64", "W", "energy_j / time_s"),
        _C(
            "slurm_energy_j",
            "float64",
            "J",
            "Slurm's own figure for the step (ConsumedEnergyRaw), whole nodes",
        ),
        _C("loss_first", "float64", "", "Training loss of the first step"),
        _C("loss_last", "float64", "", "Training loss of the last measured step"),
        _C(
            "accuracy", "float64", "", "Share of evaluation samples predicted right; null where not evaluated"
        ),
        _C(
            "warmup_drift_rel",
            "float64",
            "",
            "Difference of the median step times of the warm-up's last two chunks; null: too short to say",
        ),
        _C("start_temperature_c", "float64", "°C", "Temperature of the hottest device before the run"),
        _C("replicates", "int32", "", "Runs of this configuration whose energy is known"),
        _C("energy_cv", "float64", "", "Noise floor: coefficient of variation of their energy per token"),
        _C("time_cv", "float64", "", "The same of their time per step; both null for fewer than two"),
        _C("status", "string", "", "ok, oom or failed", "ok"),
        _C("verdict", "string", "", "valid, degraded or invalid", "valid"),
        _C("reasons", "string", "", "Reason codes of status and verdict, separated by commas", ""),
    ),
)

_COUNT = (1, 10**6)
_ANY = (-1e300, 1e300)

ASKED_BOUNDS: dict[str, tuple[float, float]] = {
    "replicate": (0, 10**6),
    **dict.fromkeys(("device_count", "nodes", "gpus_per_node", "tensor_parallel", "data_parallel"), _COUNT),
    "zero_stage": (0, 3),
    "layers": (1, 10**4),
    **dict.fromkeys(("hidden", "heads", "intermediate", "num_labels", "grad_accum", "micro_batch"), _COUNT),
    **dict.fromkeys(("vocab_size", "max_positions", "seq_len"), (1, 10**8)),
    "frozen_layers": (0, 10**4),
    "lora_rank": (0, 10**6),
}
"""Lowest and highest value of every number that is known before a run. Wide: they refuse what no run can have."""

MEASURED_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, 10**12),
    "samples": (1, 10**15),
    "tokens": (1, 10**18),
    "time_s": (1e-6, 1e10),
    "energy_j": (1e-6, 1e15),
    **dict.fromkeys(
        ("energy_edge_u_j", "energy_gain_u_j", "host_energy_j", "slurm_energy_j", "idle_power_w"), (0, 1e18)
    ),
    **dict.fromkeys(("mean_power_w", "energy_cv", "time_cv"), (0, 1e12)),
    "replicates": (0, 10**6),
    "accuracy": (0, 1),
    **dict.fromkeys(("loss_first", "loss_last", "warmup_drift_rel", "start_temperature_c"), _ANY),
}
"""The same of every number that a run shows; they hold for the rows that may be fitted."""

POWER_BOUNDS_W = (0.1, 1e5)
"""Mean power of one device (a rank, or a share of a node) in any run: beyond it a unit is wrong."""

USUAL_POWER_W = (2.0, 2e3)
"""The same as it nearly always is, in the median of a table: 300 W look like 0.3 W where ms or kJ stand for s and J."""
