"""The encoders' proxies are the numbers that fitted models were fitted on: they stay, to the last digit."""

import hashlib
import random

import pytest
from jouleline.architecture import proxies

NAMES = (
    *("compute_flop", "compute_nominal_flop", "memory_byte", "comm_byte", "comm_calls", "comm_byte_tp"),
    *("comm_calls_tp", "comm_blocking", "matmul_launches", "parameters", "trainable_parameters"),
    *("tokens_per_step", "samples_per_step", "paper_compute", "paper_memory"),
)
TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
TARGETS += ("q_lin", "out_lin", "lin1", "lin2")


def draw(rng: random.Random) -> dict:
    layers, shards = rng.choice([1, 2, 3, 6, 12, 24]), rng.choice([1, 1, 2, 3, 4, 8])
    return {
        "model_type": rng.choice(["bert", "roberta", "distilbert", "electra"]),
        "task": rng.choice(["classification", "qa", "mlm"]),
        **{"layers": layers, "hidden": rng.choice([64, 128, 192, 768, 1000, 1024])},
        **{"heads": rng.choice([1, 2, 3, 4, 7, 12, 16]), "intermediate": rng.choice([64, 512, 1111, 4096])},
        **{"seq_len": rng.choice([8, 33, 128, 512]), "micro_batch": rng.choice([1, 3, 16, 64])},
        **{"grad_accum": rng.choice([1, 1, 2, 5]), "vocab_size": rng.choice([512, 8192, 30522])},
        **{"max_positions": rng.choice([128, 512, 514]), "num_labels": rng.choice([2, 3, 20])},
        "precision": rng.choice(["fp32", "bf16", "fp16"]),
        "attention": rng.choice(["sdpa", "eager"]),
        "frozen_layers": rng.choice([0, 0, layers // 2, layers]),
        "lora_rank": rng.choice([0, 0, 4, 7, 16]),
        "lora_targets": ",".join(rng.sample(TARGETS, rng.randint(1, 4))),
        "gradient_checkpointing": rng.random() < 0.4,
        "optimizer": rng.choice(["adamw", "sgd"]),
        **{"zero_stage": rng.choice([0, 1, 2, 3]), "tensor_parallel": shards, "nodes": rng.choice([1, 2])},
        "gpus_per_node": shards * rng.choice([1, 2, 3, 4]),
    }


BASE = {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072, "seq_len": 128, "micro_batch": 32}
KNOWN = [
    (
        {"gpus_per_node": 4, "zero_stage": 3, "precision": "bf16"},
        (
            2145449705472.0,
            2145449705472.0,
            13706628930.0,
            328451334.0,
            131.0,
            0.0,
            0.0,
            0.0005717102674334092,
            294.0,
            109483778.0,
            109483778.0,
            16384.0,
            128.0,
            1449551462400.0,
            150994944.0,
        ),
    ),
    (
        {"model_type": "electra", "task": "mlm", "lora_rank": 8, "gradient_checkpointing": True},
        (
            2226156208128.0,
            2275172941824.0,
            37114718560.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            510.0,
            89550522.0,
            424122.0,
            4096.0,
            32.0,
            362387865600.0,
            37748736.0,
        ),
    ),
    (
        {
            "model_type": "distilbert",
            "task": "qa",
            "frozen_layers": 6,
            "gpus_per_node": 4,
            "tensor_parallel": 2,
        },
        (
            707902046208.0,
            715149803520.0,
            12260822228.0,
            651346952.0,
            47.0,
            566231040.0,
            45.0,
            1.0,
            195.0,
            108891650.0,
            42528770.0,
            8192.0,
            64.0,
            724775731200.0,
            75497472.0,
        ),
    ),
]


@pytest.mark.parametrize(("change", "values"), KNOWN)
def test_known_rows_keep_their_digits(change, values):
    found = proxies(BASE | change)
    assert {name: found[name] for name in NAMES} == dict(zip(NAMES, values, strict=True))


def test_no_bit_of_three_thousand_drawn_rows_has_changed():
    rng = random.Random(20260623)
    found = proxies([draw(rng) for _ in range(3000)])
    digests = {name: hashlib.sha256(found[name].tobytes()).hexdigest()[:16] for name in NAMES}
    assert digests == DIGESTS


# Of the formulas as they were before decoders came, numpy's float64 in the order of the rows.
DIGESTS = {
    "compute_flop": "8a77ea8e9d371043",
    "compute_nominal_flop": "9b6bd0c270c27ffa",
    "memory_byte": "e67ed2eb31539066",
    "comm_byte": "05f0e0701fc25756",
    "comm_calls": "11487bf4d186d875",
    "comm_byte_tp": "72388fb7e778c428",
    "comm_calls_tp": "a49a4f76df47bc6e",
    "comm_blocking": "87446795107c6166",
    "matmul_launches": "0483e98507972299",
    "parameters": "867c55b558da2012",
    "trainable_parameters": "e31aa527f526666d",
    "tokens_per_step": "1cdab2fcb174b355",
    "samples_per_step": "c07b709daa3156ab",
    "paper_compute": "127090fade1047d3",
    "paper_memory": "127bf25db7d6017b",
}
