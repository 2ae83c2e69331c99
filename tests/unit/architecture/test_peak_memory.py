"""Peak memory: activations against the tensors that autograd keeps; the parts, what a row changes, and large models."""

import decoders
import pytest
from jouleline.architecture import memory
from jouleline.architecture.memory import PARTS, peak_memory
from jouleline.campaign import grid
from jouleline.errors import UserError
from memory_counter import count_saved
from paths import TESTS
from ranks import run

WORKER = TESTS.joinpath("helpers", "memory_worker.py")
ENCODERS = ("bert", "roberta", "distilbert", "electra")
KINDS = [(precision, attention) for precision in ("bf16", "fp32") for attention in ("sdpa", "eager")]
ADAPTED = ({}, {"lora_rank": 4, "lora_targets": "q,v"}, {"lora_rank": 4, "lora_targets": "up,down"})


def row_of(model_type: str, precision: str, attention: str, **changes) -> dict:
    row = {"model_type": model_type, "layers": 2, "hidden": 512, "heads": 8, "intermediate": 1408}
    row |= {"vocab_size": 100, "max_positions": 1024, "seq_len": 256, "micro_batch": 4, "num_labels": 2}
    row |= {"precision": precision, "attention": "eager" if model_type == "gemma2" else attention}
    if model_type in ENCODERS:
        return grid.complete_row(row | {"task": "classification"} | changes)
    if model_type in decoders.OWN_KV:
        row["kv_heads"] = 2
    if model_type in decoders.OWN_DIM:
        row["head_dim"] = 128
    return row | {"task": "clm", "sliding_window": None} | changes


def check(row: dict, tolerance: float) -> None:
    """What one more layer keeps, proxy over count."""
    more = row | {"layers": row["layers"] + 1}
    counted = count_saved(more) - count_saved(row)
    assert (activations(more) - activations(row)) / counted == pytest.approx(1, abs=tolerance), row


def activations(row: dict) -> float:
    """The part as it is at the loss: nothing else is large in these rows."""
    parts = peak_memory(row | {"zero_stage": 0, "optimizer": "sgd", "micro_batch": 64 * row["micro_batch"]})
    return parts["activations"] / 64


@pytest.mark.parametrize("number", range(len(decoders.FAMILIES)))
def test_activations_are_what_autograd_keeps(number):
    precision, attention = KINDS[number % 4]
    check(row_of(list(decoders.FAMILIES)[number], precision, attention, **ADAPTED[number % 3]), 0.01)


@pytest.mark.long
@pytest.mark.parametrize("model_type", decoders.FAMILIES)
def test_activations_of_every_family_kernel_precision_and_adapter(model_type):
    for precision, attention in KINDS:
        for adapted in ADAPTED:
            check(row_of(model_type, precision, attention, **adapted), 0.01)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_activations_of_encoders(model_type):
    for precision, attention in KINDS:
        # The counter gives each layer a mask of its own in the model's precision, a PyTorch kernel shares one.
        check(row_of(model_type, precision, attention), 0.04)


LARGE = {"model_type": "llama", "task": "clm", "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8}
LARGE |= {"intermediate": 14336, "vocab_size": 128256, "seq_len": 2048, "micro_batch": 1, "precision": "bf16"}


def test_the_parts_are_the_peak_and_the_floor_is_below_it():
    found = peak_memory([LARGE | {"zero_stage": stage, "gpus_per_node": 8} for stage in range(4)])
    assert sum(found[part] for part in PARTS) == pytest.approx(found["peak"])
    assert (found["floor"] < found["peak"]).all()
    # Weights, gradients, masters and moments of 8.03e9 parameters are 16 bytes each, on one device or shared by eight.
    assert found["held"][0] == pytest.approx(14 * 8.03e9, rel=0.001)
    assert list(found["peak"]) == sorted(found["peak"], reverse=True)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"gradient_checkpointing": True}, "activations"),
        ({"seq_len": 512}, "logits"),
        ({"lora_rank": 16}, "held"),
        ({"tensor_parallel": 2, "gpus_per_node": 2}, "held"),
        ({"zero_stage": 1, "gpus_per_node": 8}, "held"),
    ],
)
def test_what_is_said_to_help_helps(change, part):
    # So many tokens that the loss is the largest moment before and after.
    row = LARGE | {"micro_batch": 64}
    before, after = peak_memory(row), peak_memory(row | change)
    assert 0 < after[part] < before[part]
    assert {"lora_rank": "LoRA"}.get(next(iter(change)), next(iter(change))) in PARTS[part]
    assert after["peak"] < before["peak"]


def test_a_row_that_no_model_can_have_is_refused():
    with pytest.raises(UserError, match="kv_heads that do not divide heads"):
        peak_memory(LARGE | {"kv_heads": 5})


@pytest.mark.long
def test_the_parts_are_what_is_alive_on_real_ranks(tmp_path, monkeypatch):
    bucket = 50_000
    monkeypatch.setattr(memory, "BUCKET_ELEMENTS", bucket)
    row = {"model_type": "llama", "task": "clm", "layers": 3, "hidden": 128, "heads": 4, "kv_heads": 2}
    row |= {"intermediate": 512, "vocab_size": 1000, "seq_len": 64, "micro_batch": 8, "gpus_per_node": 2}
    # ZeRO 3 changes torch for what comes after it in the same process.
    rows = [
        grid.complete_row(row | {"precision": precision, "zero_stage": stage, "micro_batch": micro_batch})
        for stage in range(4)
        for precision, micro_batch in (("fp32", 8), ("fp32", 32), ("bf16", 8))
    ]
    made = [one | {"zero": {"reduce_bucket_size": bucket}} for one in rows]
    for one, alive in zip(rows, run(tmp_path, [(2, made)], WORKER)[0], strict=True):
        found = peak_memory(one)
        assert found["floor"] < alive, one  # no run that fits is refused
        counted = sum(found[part] for part in PARTS if part not in ("margin", "context"))
        print(one["precision"], one["zero_stage"], one["micro_batch"], round(counted / alive, 3))
        assert 0.95 < counted / alive < 1.02, one
