"""The communication formulas against what the collectives of real DeepSpeed runs send."""

from pathlib import Path

import pytest
from jouleline.architecture import proxies, traffic
from jouleline.campaign import grid
from paths import TESTS
from ranks import run

pytestmark = pytest.mark.slow

WORKER = TESTS.joinpath("helpers", "communication_worker.py")
SMALL = {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 128, "seq_len": 32, "micro_batch": 4}
SMALL |= {"vocab_size": 1000, "num_labels": 2, "max_positions": 64}
SPLIT = SMALL | {"hidden": 512, "intermediate": 512}  # matrices above ZeRO-3's persistence threshold

TWO_RANKS = [
    *(SMALL | {"zero_stage": stage, "grad_accum": 2} for stage in range(4)),
    *(SMALL | {"zero_stage": stage, "precision": "bf16"} for stage in (0, 2)),
    *(SMALL | {"zero_stage": stage, "frozen_layers": 1} for stage in (1, 3)),
    *(SPLIT | {"zero_stage": 3, "grad_accum": accumulation} for accumulation in (1, 2)),
    SMALL | {"zero_stage": 2, "lora_rank": 4},
]
TENSOR_PARALLEL = [
    SMALL | {"grad_accum": 2, "precision": "bf16"},
    SMALL | {"frozen_layers": 1},
    SMALL | {"gradient_checkpointing": True},
    *(SMALL | {"model_type": family} for family in ("roberta", "distilbert", "electra")),
]
MORE_ON_TWO_RANKS = [
    *(SMALL | {"zero_stage": stage} for stage in range(4)),
    *(SMALL | {"zero_stage": stage, "precision": "bf16"} for stage in (1, 3)),
    *(SMALL | {"zero_stage": stage, "frozen_layers": 1} for stage in (0, 2)),
    *(SMALL | {"zero_stage": stage, "lora_rank": 4} for stage in (0, 3)),
    SPLIT | {"zero_stage": 3, "precision": "bf16", "frozen_layers": 1},
    SPLIT | {"zero_stage": 3, "gradient_checkpointing": True},
]
DECODER = SMALL | {"task": "clm", "precision": "fp32"}
SPLIT_DECODERS = [
    DECODER | {"model_type": "llama", "kv_heads": 2},
    DECODER | {"model_type": "qwen2", "kv_heads": 2, "tied": True, "grad_accum": 2},
    DECODER | {"model_type": "gpt_neox", "precision": "bf16"},
    DECODER | {"model_type": "opt"},
    DECODER | {"model_type": "qwen3", "kv_heads": 2, "tied": False},
    DECODER | {"model_type": "gemma3", "kv_heads": 2, "gradient_checkpointing": True},
]
MORE_SPLIT_DECODERS = [
    *(
        DECODER | {"model_type": family, "frozen_layers": 1}
        for family in ("llama", "qwen2", "gpt_neox", "opt")
    ),
    *(
        DECODER | {"model_type": family, "gradient_checkpointing": True}
        for family in ("llama", "gpt_neox", "opt")
    ),
    DECODER | {"model_type": "llama", "tied": True},
    DECODER | {"model_type": "mistral", "kv_heads": 2, "precision": "bf16"},
    DECODER | {"model_type": "gemma2", "kv_heads": 2, "attention": "eager"},
]
DECODERS = [
    *(DECODER | {"model_type": "llama", "zero_stage": stage, "grad_accum": 2} for stage in range(4)),
    *(DECODER | {"model_type": "qwen2", "tied": True, "zero_stage": stage} for stage in range(4)),
    DECODER | {"model_type": "gpt2", "zero_stage": 3},
    DECODER | {"model_type": "phi3", "zero_stage": 2, "lora_rank": 4, "lora_targets": "q,down"},
]
EVERY_STAGE = [SPLIT | {"zero_stage": stage} for stage in range(4)]


GROUPS = {  # (data-parallel x tensor-parallel ranks, tensor parallel, rows) by name
    "data parallel 2": (2, 1, TWO_RANKS),
    "tensor parallel 2": (2, 2, TENSOR_PARALLEL),
    "tensor parallel 2 x data parallel 2": (4, 2, EVERY_STAGE),
    "decoders on tensor parallel 2": (2, 2, SPLIT_DECODERS),
}
MORE_GROUPS = {
    "more decoders on tensor parallel 2": (2, 2, MORE_SPLIT_DECODERS),
    "decoders on data parallel 2": (2, 1, DECODERS),
    "more on data parallel 2": (2, 1, MORE_ON_TWO_RANKS),
    "data parallel 4": (4, 1, EVERY_STAGE),
}


def complete(ranks: int, shards: int, rows: list[dict]) -> list[dict]:
    return [grid.complete_row(row | {"gpus_per_node": ranks, "tensor_parallel": shards}) for row in rows]


def counted(groups: dict, folder: Path) -> dict[str, list]:
    found = run(folder, [(group[0], complete(*group)) for group in groups.values()], WORKER)
    return dict(zip(groups, found, strict=True))


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> dict[str, list]:
    return counted(GROUPS, tmp_path_factory.mktemp("communication"))


def check(group: tuple, found: list[dict]) -> None:
    for row, totals in zip(complete(*group), found, strict=True):
        expected = proxies(row)
        sent_byte = sum(total[0] for total in totals.values())
        calls = sum(total[1] for total in totals.values())
        assert expected["comm_byte"] == pytest.approx(sent_byte, rel=0.05), row
        # Agreeing on norms and overflows takes up to two more calls of a few bytes.
        assert abs(expected["comm_calls"] - calls) <= 2, row


@pytest.mark.parametrize("name", GROUPS)
def test_bytes_and_calls_are_those_of_the_collectives(sent, name):
    check(GROUPS[name], sent[name])


@pytest.mark.long
def test_bytes_and_calls_of_more_rows(tmp_path):
    found = counted(MORE_GROUPS, tmp_path)
    for name, group in MORE_GROUPS.items():
        check(group, found[name])


def zero(elements: int) -> dict[str, int]:
    """DeepSpeed's sizes, by which ZeRO-3 lets go of weights as if a small model were large."""
    names = ("stage3_max_reuse_distance", "stage3_max_live_parameters")
    return dict.fromkeys(names, elements) | {"stage3_prefetch_bucket_size": elements // 20}


@pytest.mark.long
def test_large_models_are_gathered_again_by_zero_3(tmp_path, monkeypatch):
    row = grid.complete_row(SPLIT | {"task": "clm", "model_type": "llama", "layers": 6, "heads": 8})
    row |= {"zero_stage": 3, "gpus_per_node": 2}
    row |= {"micro_batch": 1, "seq_len": 16}
    made = [(share, row | {"tied": tied}) for tied in (False, True) for share in (0.25, 0.5, 1.0, 2.0)]
    reuse = [int(share * proxies(one)["parameters"]) for share, one in made]
    rows = [one | {"zero": zero(elements)} for (_, one), elements in zip(made, reuse, strict=True)]
    counted = run(tmp_path, [(2, rows)], WORKER)[0]
    for (share, one), elements, sent in zip(made, reuse, counted, strict=True):
        monkeypatch.setattr(traffic, "REUSE_ELEMENTS", elements)
        # Half of each ring's bytes: n is 2. Gradients are one times the parameters, gathers the rest.
        excess = proxies(one)["comm_byte"] - sum(total[0] for total in sent.values())
        assert abs(excess) / (4 / 2 * proxies(one)["parameters"]) < 0.17, (share, one["tied"])
