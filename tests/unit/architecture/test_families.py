"""Every family's parameters and FLOP against the models of transformers, counted on the meta device."""

import re
import textwrap
import time

import decoders
import pytest
import torch
import transformers
from jouleline.architecture import proxies
from jouleline.architecture.counter import count_step as count_flop
from jouleline.campaign import grid, models
from jouleline.measure.train import modeling
from jouleline.schemas import families
from jouleline.schemas.families import FAMILIES
from memory_counter import count_step
from paths import ROOT

VARIANTS = ("full", "frozen", "all frozen", "lora", "lora above frozen")
VARIANTS += tuple(f"{one} checkpointed" for one in VARIANTS)


def differences(row: dict) -> dict[str, tuple[float, float]]:
    """What the proxies say of a row and what was counted, where they are not the same."""
    model = decoders.build(row)
    counted = count_flop(model, "clm", row["seq_len"], row["micro_batch"])
    counted["compute_flop"] = counted.pop("training_flop")
    found = proxies(row)
    names = ("parameters", "trainable_parameters", "compute_flop")
    return {name: (found[name], counted[name]) for name in names if found[name] != counted[name]}


@pytest.mark.parametrize("model_type", decoders.FAMILIES)
def test_parameters_and_flop_are_those_of_the_model(model_type):
    first = list(decoders.FAMILIES).index(model_type) % 3
    for variant in VARIANTS[first::3]:
        row = decoders.draw(model_type, variant, 100)
        assert differences(row) == {}, row


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model_type", decoders.FAMILIES)
def test_parameters_and_flop_over_twelve_shapes_of_every_variant(model_type, variant):
    for seed in range(12):
        row = decoders.draw(model_type, variant, seed)
        assert differences(row) == {}, row


# Sizes as published: hub pages and papers give them to three digits, Llama's to the last.
PUBLISHED = {
    "gpt2": ("gpt2", (12, 768, 12, None, None, 3072, 50257, 1024, None), 124_439_808),
    "gpt2-xl": ("gpt2", (48, 1600, 25, None, None, 6400, 50257, 1024, None), 1_557_611_200),
    "opt-125m": ("opt", (12, 768, 12, None, None, 3072, 50272, 2048, None), 125_239_296),
    "pythia-160m": ("gpt_neox", (12, 768, 12, None, None, 3072, 50304, 2048, None), 162_322_944),
    "llama-2-7b": ("llama", (32, 4096, 32, None, None, 11008, 32000, 4096, None), 6_738_415_616),
    "llama-3.1-8b": ("llama", (32, 4096, 32, 8, 128, 14336, 128256, 131072, None), 8_030_261_248),
    "llama-3.1-70b": ("llama", (80, 8192, 64, 8, 128, 28672, 128256, 131072, None), 70_553_706_496),
    "llama-3.2-1b": ("llama", (16, 2048, 32, 8, 64, 8192, 128256, 131072, True), 1_235_814_400),
    "mistral-7b": ("mistral", (32, 4096, 32, 8, 128, 14336, 32000, 32768, None), 7_241_732_096),
    "qwen2.5-7b": ("qwen2", (28, 3584, 28, 4, None, 18944, 152064, 131072, None), 7_615_616_512),
    "phi-3-mini": ("phi3", (32, 3072, 32, None, None, 8192, 32064, 4096, None), 3_821_079_552),
    "gemma-2-2b": ("gemma2", (26, 2304, 8, 4, 256, 9216, 256000, 8192, None), 2_614_341_888),
}
COLUMNS = (
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "head_dim",
    "intermediate",
    "vocab_size",
    "max_positions",
    "tied",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_size(name):
    model_type, shape, parameters = PUBLISHED[name]
    row = {"model_type": model_type, "task": "clm", "seq_len": 128, "micro_batch": 1}
    assert proxies(row | dict(zip(COLUMNS, shape, strict=True)))["parameters"] == parameters


def size_differs(name: str) -> tuple | None:
    """(proxy, count) of a shipped shape's parameters where they are not the same; None where they are."""
    shape = models.known()[name]
    row = {"task": "clm" if FAMILIES[shape["model_type"]].causal else "classification", "num_labels": 2}
    row = grid.complete_row(row | {"seq_len": 197, "micro_batch": 1, "attention": "eager"} | shape)
    if row["task"] == "clm":
        model = decoders.build(row)
    else:
        with torch.device("meta"):
            model = modeling.build(row, 2, 0, modeling.Recipe())
    counted, found = sum(parameter.numel() for parameter in model.parameters()), proxies(row)["parameters"]
    return None if counted == found else (found, counted)


SHIPPED = [name for name, shape in models.known().items() if shape["model_type"] != "vit"]


@pytest.mark.parametrize("name", SHIPPED[::7])
def test_shipped_shapes_have_the_size_of_the_model(name):
    assert size_differs(name) is None


@pytest.mark.long
def test_all_shipped_shapes_have_the_size_of_the_model():
    assert len(SHIPPED) >= 44
    assert {name: size_differs(name) for name in SHIPPED if size_differs(name)} == {}


def test_every_row_of_families_can_be_built_with_the_modules_it_names():
    for model_type, family in FAMILIES.items():
        if not family.causal:
            continue
        row = decoders.draw(model_type, "full", 0)
        names = [name.removesuffix(".weight") for name, _ in decoders.build(row).named_parameters()]
        for module in family.modules:
            assert sum(name.endswith("." + module) for name in names) == row["layers"], (model_type, module)


def test_the_guide_to_adding_a_family_works(monkeypatch):
    text = ROOT.joinpath("docs", "proxies.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    added = eval("{" + textwrap.dedent(block) + "}", vars(families))
    monkeypatch.setattr(families, "FAMILIES", families.FAMILIES | added)
    # What step 4 adds to the helper.
    monkeypatch.setitem(
        decoders.FAMILIES, "starcoder2", (transformers.Starcoder2Config, {"sliding_window": None})
    )
    monkeypatch.setattr(decoders, "OWN_KV", (*decoders.OWN_KV, "starcoder2"))
    modules = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj", "up": "c_fc", "down": "c_proj"}
    monkeypatch.setitem(decoders.MODULES, "starcoder2", modules)
    for number, variant in enumerate(VARIANTS):
        row = decoders.draw("starcoder2", variant, number)
        assert differences(row) == {}, row
    row = decoders.draw("starcoder2", "full", 0) | {
        "attention": "sdpa",
        "grad_accum": 1,
        "optimizer": "adamw",
    }
    row |= {"seq_len": 128, "micro_batch": 32}
    assert proxies(row)["memory_byte"] == pytest.approx(sum(count_step(row).values()), rel=0.02)


def test_the_page_has_every_family():
    text = ROOT.joinpath("docs", "proxies.md").read_text()
    table = text[text.index("## Families") : text.index("### Adding a family")]
    assert [name for name in FAMILIES if not re.search(rf"[|,] {name}[ ,]", table)] == []


def test_heads_of_keys_that_do_not_divide_give_the_first_device_more():
    row = {"model_type": "llama", "task": "clm", "layers": 2, "hidden": 96, "heads": 6, "kv_heads": 3}
    row |= {"intermediate": 256, "vocab_size": 1000, "seq_len": 64, "micro_batch": 2, "gpus_per_node": 2}
    one, two = (proxies(row | {"tensor_parallel": shards}) for shards in (1, 2))
    # Two of three heads of keys, half of the rest.
    assert two["attention_flop"] == pytest.approx(one["attention_flop"] * 2 / 3)
    even = proxies(row | {"tensor_parallel": 2, "kv_heads": 6})
    assert even["attention_flop"] == pytest.approx(one["attention_flop"] / 2)
    assert two["compute_flop"] > one["compute_flop"] / 2


def test_a_causal_mask_leaves_half_of_the_pairs():
    row = decoders.draw("llama", "full", 0) | {"seq_len": 128}
    found = proxies(row)
    assert found["attention_causal_flop"] / found["attention_flop"] == sum(range(1, 129)) / 128**2
    assert found["attention_flop"] < found["compute_flop"]
    encoder = proxies(
        {"layers": 2, "hidden": 64, "heads": 2, "intermediate": 64, "seq_len": 128, "micro_batch": 1}
    )
    assert encoder["attention_causal_flop"] == encoder["attention_flop"]


def test_heads_are_padded_to_tiles():
    row = {"layers": 2, "intermediate": 64, "seq_len": 128, "micro_batch": 1, "heads": 2}
    widths = {16: 64, 64: 64, 80: 128, 128: 128, 144: 256, 288: 384}
    for head, width in widths.items():
        found = proxies(row | {"hidden": 2 * head})
        assert found["attention_tile_flop"] / found["attention_flop"] == pytest.approx(width / head)


def test_ten_thousand_rows_of_all_families_take_less_than_a_second():
    rows = [decoders.draw(name, variant, 0) for name in decoders.FAMILIES for variant in VARIANTS]
    rows = (rows * 100)[:10_000]
    begin = time.process_time()
    proxies(rows)
    assert time.process_time() - begin < 1
