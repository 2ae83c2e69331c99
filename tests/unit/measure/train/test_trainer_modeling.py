"""The model of a row: shape, head, checkpoint, and which parameters are trained."""

import subprocess
import sys

import pytest
import torch
from jouleline.architecture import proxies
from jouleline.campaign.grid import complete_row
from jouleline.errors import UserError
from jouleline.measure.train.modeling import Recipe, build
from jouleline.schemas.families import DECODERS, ENCODER_TASKS, ENCODERS

ROW = complete_row(
    {
        **{"layers": 2, "hidden": 32, "heads": 4, "intermediate": 64, "seq_len": 16, "micro_batch": 2},
        **{"vocab_size": 300, "max_positions": 16},
    }
)
INPUTS = {
    "input_ids": torch.arange(1, 33).reshape(2, 16),
    "attention_mask": torch.ones(2, 16, dtype=torch.long),
}
RECIPE = Recipe(dropout=0.0)


def make(**change):
    return build({**ROW, **change}, 5, 0, RECIPE)


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("family", ENCODERS)
def test_every_family_takes_a_full_sequence_and_has_the_head_of_its_task(family):
    shapes = {"classification": (2, 5), "mlm": (2, 16, 300)}
    for task in ENCODER_TASKS:
        output = make(model_type=family, task=task)(**INPUTS)
        if task == "qa":
            assert output.start_logits.shape == output.end_logits.shape == (2, 16)
        else:
            assert output.logits.shape == shapes[task]


@pytest.mark.parametrize("family", ENCODERS)
def test_attention_kernel_is_the_one_asked_for_and_changes_nothing(family):
    outputs = {}
    for attention in ("sdpa", "eager"):
        model = make(model_type=family, attention=attention).eval()
        assert model.config._attn_implementation == attention
        outputs[attention] = model(**INPUTS).logits
    assert torch.allclose(outputs["sdpa"], outputs["eager"], atol=1e-5)


def test_the_seed_alone_decides_the_weights():
    one, same, other = (make(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", ENCODERS)
def test_frozen_layers_leave_the_upper_layers_and_the_head(family):
    names = trained(make(model_type=family, frozen_layers=1))
    assert not any("embeddings" in name or ".layer.0." in name for name in names)
    assert any(".layer.1." in name for name in names)
    assert any("classifier" in name for name in names)
    assert trained(make(model_type=family, frozen_layers=2)) == {n for n in names if ".layer." not in n}


def test_adapters_and_the_head_are_all_that_lora_trains():
    names = trained(make(lora_rank=4))
    assert {name for name in names if "lora" not in name} == {
        *("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    }
    assert sum("lora" in name for name in names) == 2 * 2 * 2  # layers x targets x factors
    assert not any(".layer.0." in name for name in trained(make(lora_rank=4, frozen_layers=1)))
    # A head that shares its matrix with frozen embeddings does not train it.
    assert not any(
        "decoder.weight" in name or "embeddings" in name for name in trained(make(task="mlm", lora_rank=4))
    )


def test_a_checkpoint_gives_its_weights(tmp_path):
    source = build({**ROW, "seed": 3}, 2, 0, RECIPE)  # the head of another task
    source.save_pretrained(tmp_path)
    loaded = make(checkpoint=str(tmp_path))
    encoder = dict(loaded.bert.named_parameters())
    assert all(torch.equal(value, encoder[name]) for name, value in source.bert.named_parameters())
    assert loaded(**INPUTS).logits.shape == (2, 5)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"layers": 3}, "num_hidden_layers 2, the row says 3"), ({"intermediate": 32}, "intermediate_size 64")],
)
def test_a_checkpoint_of_another_shape_is_refused(tmp_path, change, said):
    make().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=said):
        make(checkpoint=str(tmp_path), **change)


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        make(checkpoint=str(tmp_path / "none"))


def test_a_rank_imports_nothing_that_it_does_not_need(training_environment):
    needless = (
        "pandas",
        "peft",
        "datasets",
        "matplotlib",
        "scipy.stats",
        "torch._inductor.lowering",
        "pyarrow.dataset",
    )
    code = f"import sys, jouleline.measure.train.rank; print([name for name in {needless} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=training_environment
    )
    assert done.stdout.strip() == "[]", done.stderr


DECODER = {**ROW, "task": "clm", "dataset": "source", "seq_len": 16}
TOKENS = {"input_ids": INPUTS["input_ids"], "labels": INPUTS["input_ids"]}


def decoder(family: str, **change):
    eager = {"attention": "eager"} if family == "gemma2" else {}
    return build({**DECODER, "model_type": family, **eager, **change}, None, None, RECIPE)


@pytest.mark.parametrize("family", DECODERS)
def test_every_decoder_sees_only_what_stands_before_and_has_its_parameters(family):
    model = decoder(family).eval()
    row = {**DECODER, "model_type": family}
    assert sum(p.numel() for p in model.parameters()) == proxies(row)["parameters"]
    with torch.no_grad():
        output = model(**TOKENS)
        later = TOKENS["input_ids"].clone()
        later[:, 9:] += 1
        changed = model(input_ids=later).logits
    assert (
        output.loss.item() > 0 and output.logits.shape == (2, 16, 300) and not output.get("past_key_values")
    )
    assert torch.allclose(output.logits[:, :9], changed[:, :9], atol=1e-6)
    assert not torch.allclose(output.logits[:, 9:], changed[:, 9:], atol=1e-3)


@pytest.mark.parametrize("family", [*DECODERS, "vit"])
def test_what_is_trained_of_a_decoder_is_what_the_proxies_count(family):
    image = {"task": "classification", "dataset": "images", "image_size": 24, "patch_size": 8, "seq_len": 10}
    vit = family == "vit"
    names = "query,value,output.dense" if vit else "q,k,v,o,up,down"
    for change in ({"frozen_layers": 1}, {"lora_rank": 4, "frozen_layers": 1, "lora_targets": names}):
        row = {**DECODER, "model_type": family, "num_labels": 5, **(image if vit else {}), **change}
        model = build({**row, "attention": "eager"}, 5, None, RECIPE)
        found = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert found == proxies({**row, "attention": "eager"})["trainable_parameters"], change


def test_adapters_of_bert_can_sit_on_one_of_two_modules_of_one_name():
    names = trained(make(lora_rank=4, lora_targets="output.dense"))
    assert any(".attention.output.dense.lora" in name for name in names)
    down = trained(make(model_type="distilbert", lora_rank=4, lora_targets="lin2"))
    assert {name.split(".ffn.")[-1].split(".lora")[0] for name in down if "lora" in name} == {"lin2"}


def test_a_decoders_checkpoint_gives_its_weights_and_its_shape_is_compared(tmp_path):
    source = decoder("llama", kv_heads=2, seed=3)
    source.save_pretrained(tmp_path)
    loaded = decoder("llama", kv_heads=2, checkpoint=str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(UserError, match="num_key_value_heads 2, the row says 4"):
        decoder("llama", checkpoint=str(tmp_path))
