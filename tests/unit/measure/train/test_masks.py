"""The host's word on padding gives the same losses as transformers' own question to the device."""

import pytest
import torch
from jouleline.measure.train import masks
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    masking_utils,
)

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
}
MODELS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZE, _attn_implementation="sdpa")),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE, _attn_implementation="sdpa")),
}


@pytest.fixture
def restored(monkeypatch):
    for name in masks._NAMES:
        monkeypatch.setattr(masking_utils, name, getattr(masking_utils, name))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("padded", [False, True])
def test_the_logits_are_those_of_the_devices_answer(restored, name, padded):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[0, 9:] = 0 if padded else 1
    inputs = {"input_ids": torch.randint(1, 99, (2, 16)), "attention_mask": mask}
    before = model(**inputs).logits
    masks.answer_from_host()
    masks.tell(padded)
    assert torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize("padded", [False, True])
def test_the_device_is_not_asked(restored, monkeypatch, padded):
    masks.answer_from_host()
    masks.tell(padded)
    mask = torch.ones(2, 16, dtype=torch.bool)
    monkeypatch.setattr(torch.Tensor, "all", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(torch.Tensor, "sum", lambda *_: pytest.fail("asked"))
    assert masking_utils._ignore_bidirectional_mask_sdpa(mask, 16) is not padded
    assert masking_utils._ignore_causal_mask_sdpa(mask, 16, 16, 0, 0) is not padded
