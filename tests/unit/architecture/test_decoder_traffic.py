"""The memory traffic of decoders against the bytes that the kernels of transformers' models read and write."""

import random

import decoders
import pytest
from jouleline.architecture import proxies
from memory_counter import count_step

VARIANTS = {"full": {}, "frozen": {"frozen_layers": 2}, "checkpointed": {"gradient_checkpointing": True}}
VARIANTS |= {"lora": {"lora_rank": 8, "lora_targets": "q,k,v,o,up,down"}}
# Adapters that leave a part of the lowest layer without a gradient.
VARIANTS |= {
    "lora above": {"lora_rank": 8, "lora_targets": "v,down"},
    "lora high": {"lora_rank": 8, "lora_targets": "up"},
}
TOLERANCE = 0.02


def draw(model_type: str, variant: str, seed: int) -> dict:
    rng = random.Random(f"{model_type} {seed}")
    heads = rng.choice([8, 16])
    row = {"model_type": model_type, "task": "clm", "layers": 4, "hidden": 64 * heads, "heads": heads}
    row |= {"intermediate": rng.choice([2, 3, 4]) * 64 * heads, "vocab_size": rng.choice([2000, 8000])}
    row |= {"max_positions": 1024, "seq_len": rng.choice([256, 512]), "micro_batch": 4, "grad_accum": 1}
    row |= {"precision": ("bf16", "fp32")[seed % 2], "attention": ("sdpa", "eager")[seed // 2 % 2]}
    row |= {"optimizer": "adamw", "tied": rng.random() < 0.5, "sliding_window": None}
    if model_type == "gemma2":
        row["attention"] = "eager"
    if model_type in decoders.OWN_KV:
        row["kv_heads"] = rng.choice([2, 4, 8])
    if model_type in decoders.OWN_DIM:
        row["head_dim"] = rng.choice([64, 128])
    return row | VARIANTS[variant]


def ratios(row: dict) -> tuple[float, float]:
    """Proxy over count: of what four more sequences move, and of a whole step."""
    more = row | {"micro_batch": 2 * row["micro_batch"]}
    counted = [sum(count_step(one).values()) for one in (row, more)]
    found = [proxies(one)["memory_byte"] for one in (row, more)]
    return (found[1] - found[0]) / (counted[1] - counted[0]), found[0] / counted[0]


def check(model_type: str, variant: str, seed: int) -> None:
    row = draw(model_type, variant, seed)
    assert ratios(row) == pytest.approx((1, 1), abs=TOLERANCE), row


@pytest.mark.parametrize("number", range(len(decoders.FAMILIES)))
def test_traffic_is_that_of_the_kernels(number):
    variant = list(VARIANTS)[number % len(VARIANTS)]
    check(list(decoders.FAMILIES)[number], variant, number)


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model_type", decoders.FAMILIES)
def test_traffic_over_all_variants(model_type, variant):
    for seed in range(4):
        check(model_type, variant, seed)
