"""The memory proxy against the bytes that the kernels of the trainer's own models read and write."""

import random

import numpy as np
import pytest
from jouleline.architecture import proxies
from jouleline.campaign import grid
from memory_counter import count_step

FAMILIES = ("bert", "roberta", "distilbert", "electra")
TASKS = ("classification", "qa", "mlm")
TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
VARIANTS = ("full", "frozen", "checkpointing", "lora", "frozen lora checkpointing")
SHAPE = {"layers": 4, "hidden": 256, "heads": 4, "intermediate": 1024, "seq_len": 128, "micro_batch": 8}
ROW = grid.complete_row(SHAPE | {"vocab_size": 8192, "num_labels": 2})


def draw(seed: int) -> dict:
    """A row; family, task, variant and attention run through all their combinations."""
    rng = random.Random(seed)
    seed, family = divmod(seed, len(FAMILIES))
    seed, task = divmod(seed, len(TASKS))
    attention, variant = divmod(seed, len(VARIANTS))
    name, layers, hidden = VARIANTS[variant], rng.choice([2, 4, 6]), rng.choice([128, 256, 512, 768, 1024])
    return grid.complete_row(
        {
            **{"model_type": FAMILIES[family], "task": TASKS[task], "layers": layers, "hidden": hidden},
            **{"heads": rng.choice([2, 4, 8]), "intermediate": rng.choice([1, 2, 4]) * hidden},
            **{"seq_len": rng.choice([32, 128, 384, 512]), "micro_batch": rng.choice([2, 16, 64])},
            **{"vocab_size": rng.choice([8192, 30522]), "num_labels": 2, "grad_accum": rng.choice([1, 1, 2])},
            **{"attention": ("sdpa", "eager")[attention % 2], "precision": rng.choice(["fp32", "bf16"])},
            "optimizer": rng.choice(["adamw", "adamw", "sgd"]),
            "frozen_layers": layers // 2 if "frozen" in name else 0,
            "gradient_checkpointing": "checkpointing" in name,
            "lora_rank": rng.choice([4, 16]) if "lora" in name else 0,
            "lora_targets": ",".join(rng.sample(TARGETS, rng.randint(1, 4))),
        }
    )


def log_ratio(row: dict) -> float:
    """Log of the counted bytes over the proxy."""
    return float(np.log(sum(count_step(row).values()) / proxies(row)["memory_byte"]))


def check(seeds: range) -> None:
    """One multiplier for all, near 1, and little left."""
    ratios = np.array([log_ratio(draw(seed)) for seed in seeds])
    assert abs(ratios.mean()) < 0.03
    assert ratios.std() < 0.05
    # The most where a model of two layers has adapters at their top only: the gradient ends there, the proxy goes on.
    assert np.abs(ratios).max() < 0.25, draw(seeds[int(np.abs(ratios).argmax())])


def test_one_multiplier_follows_the_count_over_shapes_and_variants():
    check(range(0, 120, 11))


@pytest.mark.long
def test_one_multiplier_follows_the_count_over_240_shapes():
    check(range(240))


@pytest.mark.parametrize(
    "change",
    [
        {"attention": "eager"},
        {"frozen_layers": 2},
        {"gradient_checkpointing": True},
        {"lora_rank": 8},
        {"lora_rank": 8, "lora_targets": "query,key,value,intermediate.dense"},
        {"grad_accum": 4},
        {"precision": "bf16"},
        {"optimizer": "sgd"},
        {"task": "mlm"},
    ],
)
def test_what_a_column_changes_is_what_the_kernels_change(change):
    counted = sum(count_step(ROW | change).values()) / sum(count_step(ROW).values())
    found = proxies(ROW | change)["memory_byte"] / proxies(ROW)["memory_byte"]
    assert found == pytest.approx(counted, rel=0.05)
