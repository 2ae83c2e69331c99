"""Tables drawn from the roofline law with known constants. Fits are judged by this truth."""

import numpy as np
from jouleline.model.features import Data
from jouleline.model.roofline import law as roofline
from jouleline.model.table.runs import Columns, complete

DEVICE = "NVIDIA A100-SXM4-80GB"

# Unbounded values of the law's slots.
TRUTH = {
    "peak_flops": np.log(1.5e14),
    "half_saturation_flop": np.log(3e9),
    "attention_weight": np.log(1.5),
    "attention_padding": 0.0,
    "memory_bandwidth": np.log(1.2e12),
    "compute_memory_exponent": -1.5,
    "device_host_exponent": -1.5,
    "host_fixed_s": np.log(3e-3),
    "host_layer_s": np.log(6e-4),
    "collective_latency_s": np.log(3e-5),
    "link_bandwidth": np.log(8e10),
    "overlap": 0.3,
    "fixed_time_s": -700.0,
    "contention": 0.0,
    "static_power_w": np.log(110.0),
    "node_power_w": -700.0,
    "compute_energy_j_per_flop": np.log(1.2e-12),
    "memory_energy_j_per_byte": np.log(6e-11),
    "link_energy_j_per_byte": np.log(3e-11),
}

SINGLE = ((1, 1, 0),)
STRATEGIES = ((1, 1, 0), (2, 1, 1), (2, 1, 3), (2, 2, 0), (4, 1, 3), (4, 2, 1))
"""(device_count, tensor_parallel, zero_stage)."""


def table(
    rows: int = 60,
    seed: int = 0,
    noise: float = 0.02,
    strategies: tuple = STRATEGIES,
    device: str = DEVICE,
    source: str = "nvml_counter",
    truth: dict | None = None,
    replicates: int = 1,
    precision: str = "bf16",
) -> Columns:
    """A complete runs table. It has log-normal noise of `noise` per run and half of it per family, on time and
    energy."""
    rng = np.random.default_rng(seed)
    drawn = [_row(rng, strategies, device, source) | {"precision": precision} for _ in range(rows)]
    drawn = [row | {"replicate": k + 1} for row in drawn for k in range(replicates)]
    columns = complete({name: [row[name] for row in drawn] for name in drawn[0]}, "synthetic")
    return with_targets(columns, rng, noise, truth or TRUTH)


def _row(rng: np.random.Generator, strategies: tuple, device: str, source: str) -> dict:
    hidden = int(rng.choice([128, 256, 384, 512, 768]))
    count, tensor, zero = strategies[int(rng.integers(len(strategies)))]
    return {
        "device": device,
        "device_count": count,
        "tensor_parallel": tensor,
        "zero_stage": zero,
        "gpus_per_node": count,
        "layers": int(rng.choice([2, 4, 6, 8, 12])),
        "hidden": hidden,
        "heads": hidden // 64,
        "intermediate": 4 * hidden,
        "seq_len": int(rng.choice([64, 128, 256, 512])),
        "micro_batch": int(rng.choice([8, 16, 32, 64])),
        "attention": "eager" if rng.random() < 0.3 else "sdpa",
        "vocab_size": 8192,
        "steps": 10,
        "time_s": 1.0,
        "energy_j": 1.0,
        "energy_source": source,
    }


def with_targets(columns: Columns, rng: np.random.Generator, noise: float, truth: dict) -> Columns:
    """The same rows with time and energy drawn from the law."""
    data = Data.of(columns)
    with np.errstate(over="ignore"):
        values = {name: np.array([value]) for name, value in truth.items()}
        log_time, log_energy, _, _ = roofline.step(values, roofline.inputs(data))
    shared = rng.normal(0, noise / 2, (2, data.families.max() + 1))[:, data.families]
    own = rng.normal(0, noise, (2, len(data))) if noise else np.zeros((2, len(data)))
    time, energy = (
        np.exp(log + s + o) * 10 for log, s, o in zip((log_time, log_energy), shared, own, strict=True)
    )
    return {**columns, "time_s": time, "energy_j": energy, "mean_power_w": energy / time}
