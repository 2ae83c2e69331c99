"""What is changed in DeepSpeed's engine: its first step, its search for overflow, its pickled batches."""

import dataclasses

import deepspeed
import numpy as np
import pytest
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from jouleline.campaign.grid import complete_row
from jouleline.measure.train.attention import answer_from_data, attention_seen
from jouleline.measure.train.data import Batches, Samples, read_dataset
from jouleline.measure.train.modeling import Recipe, build
from jouleline.measure.train.parallel import _NoOperators, start_engine
from parity import train
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import masking_utils

# One rank each: stages 0 and 1 then do the same sums in the same order.
CASES = {
    "bf16 zero 0": {"precision": "bf16", "zero_stage": 0, "learning_rate": 3e-3},
    "bf16 zero 1": {"precision": "bf16", "zero_stage": 1, "learning_rate": 3e-3},
    "tensor 2": {"gpus_per_node": 2, "tensor_parallel": 2},
}
ROW = {
    **{"layers": 1, "hidden": 32, "heads": 4, "intermediate": 64, "seq_len": 16, "micro_batch": 4},
    **{"vocab_size": 512, "max_positions": 32},
}


@pytest.fixture(scope="module")
def trained(small_dataset, training_environment, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("engine")
    cases = {name: {"row": row} for name, row in CASES.items()}
    found = train(cases, small_dataset, folder, training_environment)
    assert not any("error" in one for one in found.values()), found
    return found


def test_the_first_step_of_bf16_is_adam_s_first_with_and_without_zero(trained):
    """DeepSpeed's optimizer for 16 bits without ZeRO steps once with zero gradients before training."""
    pairs = zip(trained["bf16 zero 0"]["losses"], trained["bf16 zero 1"]["losses"], strict=True)
    assert max(abs(one - other) for one, other in pairs) < 2e-3


def test_no_batch_is_pickled_between_the_ranks_of_a_tensor_parallel_group(trained):
    assert trained["tensor 2"]["pickled"] == 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A process group of one, on a CPU on which DeepSpeed accepts fp16. DeepSpeed remembers its first group."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("alone") / "store"), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: True)
        # As in a rank: DeepSpeed compiles nothing, and waits for no compiler that another process left behind.
        patch.setattr(deepspeed.ops, "__compatible_ops__", _NoOperators())
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
            patch.setenv(name, value)
        yield
        dist.destroy_process_group()


class Waits(TorchDispatchMode):
    """Counts how often a value is fetched from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_forward_pass_waits_for_nothing_and_its_kernel_is_known(small_dataset, attention):
    row = complete_row(ROW | {"attention": attention})
    data = read_dataset(small_dataset, row)
    model = build(row, data.num_labels, data.facts["pad_id"], Recipe())
    batches = Batches(data, row, 0, 1, torch.device("cpu"))
    answer_from_data(data)
    inputs = [batches.train(step, 0)[1] for step in range(4)]
    with attention_seen() as seen, Waits() as waits:
        losses = [model(**one).loss for one in inputs]
    assert waits.count == 0
    # A CPU's flash attention knows no dropout.
    assert seen.kernels == ({"math"} if attention == "sdpa" else set())
    assert seen.causal_half_share == 0 and seen.calls == (attention == "sdpa") * 4 * row["layers"]
    assert all(loss.isfinite() for loss in losses)


# (family, sliding window, dropout): the kernel, and the share of calls that computed the causal half.
CAUSAL = [
    ("llama", None, 0.0, "flash_attention", 1.0),
    ("gpt2", None, 0.0, "flash_attention", 1.0),
    ("gpt2", None, 0.1, "math", 0.0),
    # Its five windowed layers of six have a mask.
    ("gemma3", 8, 0.0, "flash_attention", 1 / 6),
]


@pytest.mark.parametrize(("family", "window", "dropout", "kernel", "share"), CAUSAL)
def test_what_causal_attention_computed_is_known(family, window, dropout, kernel, share):
    row = {"model_type": family, "task": "clm", "layers": 6, "sliding_window": window}
    model = build(complete_row(ROW | row), None, None, Recipe(dropout=dropout))
    tokens = torch.arange(32).reshape(2, 16)
    with attention_seen() as seen:
        model(input_ids=tokens, labels=tokens)
    assert (seen.kernels, seen.calls) == ({kernel}, 6)
    assert seen.causal_half_share == pytest.approx(share)


@pytest.mark.parametrize("padded", [True, False])
def test_padding_is_masked_where_the_data_has_any(small_dataset, padded, monkeypatch):
    row = complete_row(ROW)
    data = read_dataset(small_dataset, row)
    whole = (data.train.inputs != data.facts["pad_id"]).all(axis=1)
    assert whole.any() and not whole.all()
    model = build(row, data.num_labels, data.facts["pad_id"], Recipe(dropout=0.0)).eval()
    chosen = data.train.inputs[np.flatnonzero(whole != padded)[:4]]
    inputs = torch.from_numpy(chosen.astype(np.int64))
    mask = (inputs != data.facts["pad_id"]).long()
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_: False)
    masked = model(input_ids=inputs, attention_mask=mask).logits
    if not padded:
        only = Samples(data.train.inputs[whole], {})
        data = dataclasses.replace(data, train=only, evaluation=only)
    answer_from_data(data)
    assert masking_utils._ignore_bidirectional_mask_sdpa(mask, 16) is not padded
    assert torch.allclose(model(input_ids=inputs, attention_mask=mask).logits, masked, atol=1e-6)


def test_a_step_in_fp16_does_not_look_through_every_gradient_for_overflow(alone):
    row = complete_row(ROW | {"precision": "fp16"})
    engine = start_engine(build(row, 2, 0, Recipe()), row, Recipe())
    looked = []
    engine.optimizer.overflow_checker.has_overflow = lambda *_, **__: looked.append(1) or False
    inputs = {"input_ids": torch.ones(4, 16, dtype=torch.int64), "labels": torch.zeros(4, dtype=torch.int64)}
    before = {name: value.detach().clone() for name, value in engine.module.named_parameters()}
    engine.backward(engine(**inputs).loss)
    next(engine.module.parameters()).grad[0, 0] = float("inf")
    engine.step()
    # The norm alone tells: nothing is learnt from a gradient that overflowed.
    assert engine.skipped_steps == 1 and looked == []
    assert all(torch.equal(value, before[name]) for name, value in engine.module.named_parameters())
    engine.backward(engine(**inputs).loss)
    engine.step()
    assert engine.skipped_steps == 1
    assert not all(torch.equal(value, before[name]) for name, value in engine.module.named_parameters())


@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_in_fp16_with_zero_is_left_out_by_its_norm(alone, stage):
    row = complete_row(ROW | {"precision": "fp16", "zero_stage": stage})
    engine = start_engine(build(row, 2, 0, Recipe()), row, Recipe())
    looked = []
    engine.optimizer.has_overflow = lambda *_, **__: looked.append(1) or False
    inputs = {"input_ids": torch.ones(4, 16, dtype=torch.int64), "labels": torch.zeros(4, dtype=torch.int64)}
    before = {name: value.detach().clone() for name, value in engine.module.named_parameters()}
    engine.backward(engine(**inputs).loss * float("inf"))
    engine.step()
    assert engine.skipped_steps == 1 and looked == []
    assert all(torch.equal(value, before[name]) for name, value in engine.module.named_parameters())
    # DeepSpeed halves its scale at the second overflow only.
    for _ in range(3):
        engine.backward(engine(**inputs).loss)
        engine.step()
    assert engine.skipped_steps <= 2 and looked == []
    assert not all(torch.equal(value, before[name]) for name, value in engine.module.named_parameters())
