"""Decoders and image models: every strategy trains like one rank, whatever the family needs to be split."""

import pytest
from jouleline.schemas.families import DECODERS
from jouleline.schemas.families import FAMILIES as DESCRIBED
from parity import EXACT, STAGES, difference, strategy, train

pytestmark = pytest.mark.slow

SHAPE = {"hidden": 64, "intermediate": 128, "seq_len": 32, "max_positions": 64, "learning_rate": 3e-3}
TEXT = {**SHAPE, "task": "clm", "dataset": "source"}
IMAGE = {**SHAPE, "dataset": "images", "image_size": 32, "patch_size": 8, "seq_len": 17}
ALL = {"lora_rank": 4, "lora_targets": "q,k,v,o,up,down", "frozen_layers": 1}
GATE = {**ALL, "lora_targets": ALL["lora_targets"] + ",gate"}
BERT_NAMES = {
    **ALL,
    "lora_targets": "query,key,value,output.dense,intermediate.dense",
}  # what an image model knows
CHECKPOINTED = {"frozen_layers": 1, "gradient_checkpointing": True}
FAMILIES = (*DECODERS, "vit")


def shape(family: str) -> dict:
    """A tiny model of a family, with half as many heads for keys and values where it can have them."""
    row = {**(IMAGE if family == "vit" else TEXT), "model_type": family}
    if DESCRIBED[family].gated:
        row["kv_heads"] = 2
    return row | ({"attention": "eager"} if family == "gemma2" else {})


# (family, data-parallel, tensor-parallel, ZeRO stage, what else): a new case is one line.
SAMPLE = [
    ("gpt2", 2, 2, 1, {}),
    ("opt", 1, 2, 0, CHECKPOINTED),
    ("gpt_neox", 1, 2, 0, {}),
    ("llama", 1, 4, 0, {}),  # two ranks have no head of keys and values
    ("llama", 1, 2, 0, {"hidden": 96, "heads": 6, "kv_heads": 3, "head_dim": 8}),  # nor does 2 divide 3
    ("llama", 2, 1, 3, GATE),
    ("mistral", 2, 1, 2, {"sliding_window": 8}),
    ("qwen2", 2, 2, 3, {"tied": True}),
    ("qwen3", 1, 2, 0, {"frozen_layers": 1}),
    ("phi3", 1, 2, 0, {}),
    ("gemma2", 1, 2, 0, {"sliding_window": 8}),
    ("gemma3", 2, 2, 1, {}),
    ("vit", 1, 2, 0, {}),
    ("gpt2", 2, 1, 1, ALL),
]


def every_strategy() -> list[tuple]:
    """Every family, full under all layouts, adapted under all stages, and with frozen layers and checkpointing."""
    found = []
    for family in FAMILIES:
        found += [(family, data, tensor, stage, {}) for data, tensor in ((2, 1), (2, 2)) for stage in STAGES]
        found += [(family, 1, 2, 0, {}), (family, 1, 4, 0, {"kv_heads": None} if family == "phi3" else {})]
        adapted = BERT_NAMES if family == "vit" else GATE if DESCRIBED[family].gated else ALL
        found += [(family, 2, 1, stage, adapted) for stage in STAGES]
        found += [(family, *layout, CHECKPOINTED) for layout in ((2, 1, 1), (2, 1, 3), (1, 2, 0), (2, 2, 1))]
    return found


def cases(sample: list[tuple], source, images) -> dict[str, dict]:
    """Cases of strategy_losses.py by name; `reference` names the same row on one rank."""
    made = {}
    for family, data, tensor, stage, change in sample:
        row = {**shape(family), **change}
        more = {"steps": 5, "dataset": str(images if family == "vit" else source)}
        alone = f"one rank {data} {family} {change}"
        made[alone] = {"row": {**row, "grad_accum": data}, **more}
        wide = {"row": {**row, **strategy(data, tensor, stage)}, "reference": alone, **more}
        made[f"{family} {data}x{tensor} zero {stage} {change}"] = wide
    return made


def compared(found: dict, made: dict) -> dict[str, float]:
    """Largest difference to one rank by case."""
    with_reference = {name: case["reference"] for name, case in made.items() if "reference" in case}
    return {name: difference(found[name], found[other]) for name, other in with_reference.items()}


@pytest.fixture(scope="module")
def trained(source_dataset, image_dataset, training_environment, tmp_path_factory) -> tuple[dict, dict]:
    made = cases(SAMPLE, source_dataset, image_dataset)
    return train(made, source_dataset, tmp_path_factory.mktemp("decoders"), training_environment), made


def test_losses_are_those_of_one_rank(trained):
    apart = compared(*trained)
    assert len(apart) == len(SAMPLE) and {name: d for name, d in apart.items() if d > EXACT} == {}


def test_all_that_is_trained_learns(trained):
    found, made = trained
    for name in made:
        losses = found[name]["losses"]
        assert len(set(losses)) == len(losses), (name, losses)
    fallen = {name: found[name]["losses"][0] - found[name]["losses"][-1] for name in made}
    assert {name: by for name, by in fallen.items() if "{}" in name and "vit" not in name and by < 0.02} == {}


def test_samples_parameters_and_right_tokens_are_those_of_one_rank(trained):
    found, made = trained
    for name, case in made.items():
        if "reference" not in case:
            continue
        one, alone = found[name], found[case["reference"]]
        assert (one["digest"], one["parameters"]) == (alone["digest"], alone["parameters"])
        if " 1x" in name:  # more replicas evaluate on more samples
            assert (
                one["accuracy"] == alone["accuracy"] and abs(one["eval_loss"] - alone["eval_loss"]) <= EXACT
            )


@pytest.mark.long
def test_every_family_under_every_strategy(source_dataset, image_dataset, training_environment, tmp_path):
    made = cases(every_strategy(), source_dataset, image_dataset)
    apart = compared(train(made, source_dataset, tmp_path, training_environment), made)
    print(max(apart.values()), max(apart, key=apart.get))
    assert len(apart) == len(FAMILIES) * 18
    assert {name: value for name, value in apart.items() if value > EXACT} == {}
