"""`model: NAME` in a row: what the name gives, what must agree with it, and what is refused."""

import json

import pytest
from jouleline.architecture import proxies
from jouleline.campaign import grid, models
from jouleline.campaign.strategy import lora_names
from jouleline.errors import UserError
from jouleline.schemas.families import FAMILIES
from paths import ROOT

ROW = {"seq_len": 128, "micro_batch": 1}
LLAMA = {
    **{"model_type": "llama", "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8},
    **{"intermediate": 14336, "vocab_size": 128256, "max_positions": 131072},
}
CONFIG = {
    **{"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256},
    **{"max_position_embeddings": 131072, "tie_word_embeddings": False},
}


def expand(row, **options):
    return grid.expand({"rows": [{**ROW, **row}]}, "cuda", 8, **options)[0]


def refused(row, **options):
    with pytest.raises(UserError) as caught:
        expand(row, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "Llama-3.1-8B", "meta-llama/Llama-3.1-8B"])
def test_a_row_by_name_or_by_hand_is_one_measurement(name):
    by_hand = expand({**LLAMA, "task": "clm", "dataset": "source", "tied": False, "head_dim": 128})
    assert expand({"model": name}).key == by_hand.key == expand(LLAMA).key
    assert "tied" not in by_hand.key and "head_dim" not in by_hand.key


@pytest.mark.parametrize("name", sorted(models.known()))
def test_every_shape_of_the_table_is_a_row_with_proxies(name):
    image = models.known()[name]["model_type"] == "vit"
    row = expand({"model": name, "seq_len": 197} if image else {"model": name}).row
    assert proxies({**row, "device_count": 1})["parameters"] > 1e6


def test_a_model_is_an_axis_and_its_shape_can_be_derived_from():
    names = ["qwen3-0.6b", "qwen3-8b"]
    block = {"axes": {"model": names}, "set": ROW, "derived": {"lora_rank": "hidden // 64"}}
    found = grid.expand({"blocks": [{**block, "exclude": [{"model": "qwen3-8b"}]}]}, "cuda", 8)
    assert [run.row["lora_rank"] for run in found] == [16]
    assert [run.row["hidden"] for run in grid.expand({"blocks": [block]}, "cuda", 8)] == [1024, 4096]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "llama-3.1-8b", "hidden": 4000}, "hidden is 4000 here and 4096 in model llama-3.1-8b"),
        ({"model": "lama-3.1"}, "'lama-3.1' is not known; near it are llama-3"),
        ({"model": 8}, "model must be text"),
        ({"model": "folder"}, "missing file"),
        ({"model": "broken.json"}, "is no JSON"),
        ({"model": "list.json"}, "is no model's config.json"),
        ({"model": "moe.json"}, "mixture of experts"),
        ({"model": "other.json"}, "model_type 't5' is not known"),
        ({"model": "thin.json"}, "lacks heads, intermediate"),
        ({"model": "gpt2", "task": "classification"}, "task classification does not go with model_type gpt2"),
        ({"model": "gpt2", "kv_heads": 4}, "kv_heads is 4 here and 12"),
        ({**LLAMA, "kv_heads": 5}, "kv_heads 5 does not go with model_type llama; give a divisor"),
        ({**LLAMA, "model_type": "opt"}, "kv_heads 8 does not go with model_type opt"),
        ({**LLAMA, "model_type": "qwen2", "head_dim": 64}, "head_dim 64 is not hidden / heads"),
        ({**LLAMA, "sliding_window": 64}, "sliding_window does not go with model_type llama"),
        ({**LLAMA, "image_size": 64, "patch_size": 8}, "image_size and patch_size go together"),
        ({"model": "gemma-2-2b", "attention": "sdpa"}, "attention sdpa does not go with"),
        ({"model": "bert-base", "task": "clm"}, "task clm does not go with model_type bert"),
        ({"model": "bert-base", "dataset": "source"}, "dataset source does not go with task class"),
        ({"model": "gpt2", "dataset": "docstrings"}, "dataset docstrings does not go with task clm"),
        ({"model": "gpt2", "lora_rank": 8, "lora_targets": "q,gate"}, "lora_targets names 'gate'"),
        ({"model": "bert-base", "lora_rank": 8, "lora_targets": "q"}, "lora_targets names 'q'"),
    ],
)
def test_what_a_model_cannot_be_is_one_clear_line(change, said, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "moe.json").write_text(json.dumps({**CONFIG, "model_type": "qwen3_moe"}))
    (tmp_path / "other.json").write_text(json.dumps({**CONFIG, "model_type": "t5"}))
    thin = {key: CONFIG[key] for key in ("model_type", "num_hidden_layers", "hidden_size")}
    (tmp_path / "thin.json").write_text(json.dumps(thin))
    assert said in refused(change, root=tmp_path)


def test_a_config_json_gives_the_shape_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    fetched = tmp_path / "config/models/me/mine"
    fetched.mkdir(parents=True)
    (fetched / "config.json").write_text(json.dumps(CONFIG))
    for name in (str(tmp_path), "config.json", "me/mine"):
        assert expand({"model": name}, root=tmp_path).key == expand(LLAMA).key


# Of each family one: what its config.json says, and what a row must hold.
CONFIGS = [
    (
        {
            "model_type": "gpt2",
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_positions": 1024,
            "n_inner": None,
        },
        {"intermediate": 3072, "max_positions": 1024},
    ),
    (
        {"model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072},
        {"layers": 6, "intermediate": 3072},
    ),
    ({**CONFIG, "model_type": "roberta", "max_position_embeddings": 514}, {"max_positions": 512}),
    (
        {**CONFIG, "model_type": "gemma3", "text_config": {**CONFIG, "model_type": "gemma3_text"}},
        {"tied": False},
    ),
    (
        {**CONFIG, "model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False},
        {"sliding_window": None},
    ),
]


@pytest.mark.parametrize(("told", "wanted"), CONFIGS, ids=lambda x: x.get("model_type"))
def test_every_way_of_writing_a_config_is_read(told, wanted):
    found = models.from_config(told, "here")
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("hidden", [-64, 0, "64", 64.0, True, [64]])
def test_a_config_of_figures_that_are_none_is_refused(hidden):
    with pytest.raises(UserError, match="here: hidden_size is .*; it must be a whole number above 0"):
        models.from_config({**CONFIG, "hidden_size": hidden}, "here")


def test_adapters_go_on_parts_that_the_family_has():
    for name, family in FAMILIES.items():
        parts = {part for parts in lora_names(name).values() for part in parts}
        assert parts <= {part for matrix in family.matrices for part in matrix}


def test_the_table_is_where_it_is_looked_for():
    assert models.TABLE.is_relative_to(ROOT) and len(models.known()) >= 40
