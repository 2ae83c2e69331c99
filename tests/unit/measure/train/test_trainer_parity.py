"""Every strategy trains like one rank: the same samples and the same losses, step by step."""

import json

import pytest
from jouleline.schemas.families import ENCODER_TASKS, ENCODERS
from parity import EXACT, STAGES, difference, strategy, train

pytestmark = pytest.mark.slow

SGD = {"optimizer": "sgd", "learning_rate": 0.1}
PLAIN = {"clip": 0.0}


class Cases(dict):
    """Name to case. A case is compared with the case that `reference` names: the same row on one rank, with micro-steps
    instead of data-parallel replicas."""

    def add(self, name: str, data: int, tensor: int, stage: int, recipe: dict | None = None, **row) -> None:
        accumulated = row.pop("grad_accum", 1)
        alone = {"grad_accum": accumulated * data, **row}
        key = "one rank " + json.dumps([alone, recipe], sort_keys=True)
        self[key] = {"row": alone, "recipe": recipe or {}}
        wide = strategy(data, tensor, stage, grad_accum=accumulated, **row)
        self[name] = {"row": wide, "recipe": recipe or {}, "reference": key}

    def add_variants(self, *stages: int) -> None:
        """Each stage with SGD over two micro-steps, and in bf16."""
        for stage in stages:
            self.add(f"zero {stage} sgd accumulating", 2, 1, stage, PLAIN, grad_accum=2, **SGD)
            self.add(f"zero {stage} bf16", 2, 1, stage, precision="bf16")


def default_cases() -> Cases:
    """Each stage, layout, family, task and column at least once."""
    cases = Cases()
    for stage in STAGES:
        cases.add(f"zero {stage}", 2, 1, stage)
    cases.add_variants(0, 3)
    for stage in (1, 2):
        cases.add(f"tensor 2 zero {stage}", 2, 2, stage)
    cases.add("tensor 2 zero 3 sgd accumulating", 2, 2, 3, PLAIN, grad_accum=2, **SGD)
    for tensor in (2, 4):
        cases.add(f"tensor {tensor}", 1, tensor, 0)
    cases.add("tensor 2 sgd accumulating", 1, 2, 0, PLAIN, grad_accum=2, **SGD)
    cases.add("tensor 2 bf16", 1, 2, 0, precision="bf16")
    cases.add("roberta tensor 2", 1, 2, 0, PLAIN, model_type="roberta", **SGD)
    cases.add("distilbert tensor 2", 1, 2, 0, PLAIN, model_type="distilbert", **SGD)
    cases.add("electra zero 3", 2, 1, 3, PLAIN, model_type="electra", **SGD)
    cases.add("qa tensor 2", 1, 2, 0, PLAIN, task="qa", **SGD)
    cases.add("mlm zero 3", 2, 1, 3, PLAIN, task="mlm", **SGD)
    cases.add("mlm tensor 2", 1, 2, 0, PLAIN, task="mlm", **SGD)
    cases.add("checkpointing tensor 2", 1, 2, 0, gradient_checkpointing=True)
    cases.add("eager tensor 2 zero 1", 2, 2, 1, attention="eager")
    cases.add("frozen zero 2", 2, 1, 2, frozen_layers=1)
    cases.add("lora zero 3", 2, 1, 3, lora_rank=4)
    cases.add("lora zero 1", 2, 1, 1, lora_rank=4, lora_targets="query,value,output.dense", frozen_layers=1)
    return cases


def more_cases() -> Cases:
    """What the default set leaves to the long one, beside every family and task."""
    cases = Cases()
    cases.add_variants(1, 2)
    for stage in (0, 3):
        cases.add(f"tensor 2 zero {stage}", 2, 2, stage)
    cases.add("tensor 4 sgd accumulating", 1, 4, 0, PLAIN, grad_accum=2, **SGD)
    cases.add("zero 3 on four", 4, 1, 3)
    cases.add("checkpointing zero 3", 2, 1, 3, gradient_checkpointing=True)
    cases.add("frozen tensor 2 zero 3", 2, 2, 3, frozen_layers=1)
    return cases


def sensitivity_cases() -> dict[str, dict]:
    """The smallest error that the comparison must see: one per cent in the length of a step."""
    return {
        "adamw 1 % longer": {"row": {"learning_rate": 1.01e-3}},
        "sgd 1 % longer": {"row": {**SGD, "learning_rate": 0.101}, "recipe": PLAIN},
        "adamw": {"row": {}},
        "sgd": {"row": SGD, "recipe": PLAIN},
        "eager": {"row": {"attention": "eager"}},
        "checkpointing": {"row": {"gradient_checkpointing": True}},
        "dropout": {"row": {"gpus_per_node": 2, "tensor_parallel": 2}, "recipe": {"dropout": 0.1}},
    }


CASES = default_cases()
COMPARED = [name for name, case in CASES.items() if "reference" in case]


@pytest.fixture(scope="module")
def trained(small_dataset, training_environment, tmp_path_factory) -> dict:
    cases = {**CASES, **sensitivity_cases()}
    return train(cases, small_dataset, tmp_path_factory.mktemp("parity"), training_environment)


def check(found: dict, cases: dict, name: str) -> None:
    case = cases[name]
    apart = difference(found[name], found[case["reference"]])
    if case["row"].get("precision") == "bf16":
        # 8 bits of mantissa: a loss near 2 has steps of 2^-7; sums in another order move it by a few of them.
        assert apart <= 4 * 2**-8 * max(found[name]["losses"]), (name, apart)
    else:
        assert apart <= EXACT, (name, apart)


@pytest.mark.parametrize("name", COMPARED)
def test_losses_are_those_of_one_rank(trained, name):
    check(trained, CASES, name)


@pytest.mark.parametrize("name", COMPARED)
def test_samples_are_those_of_one_rank(trained, name):
    assert trained[name]["digest"] == trained[CASES[name]["reference"]]["digest"]
    assert trained[name]["parameters"] == trained[CASES[name]["reference"]]["parameters"]


@pytest.mark.parametrize("name", [name for name in COMPARED if CASES[name]["row"]["tensor_parallel"] > 1])
def test_ranks_of_a_tensor_parallel_group_see_one_loss(trained, name):
    ranks, shards = trained[name]["rank_losses"], CASES[name]["row"]["tensor_parallel"]
    for first in range(0, len(ranks), shards):
        for other in ranks[first : first + shards]:
            assert other == pytest.approx(ranks[first], abs=EXACT)


def test_a_small_error_would_be_seen(trained):
    assert difference(trained["adamw"], trained["adamw 1 % longer"]) > 2 * EXACT
    assert difference(trained["sgd"], trained["sgd 1 % longer"]) > 2 * EXACT


def test_eager_attention_and_checkpointing_change_no_loss(trained):
    assert difference(trained["adamw"], trained["eager"]) <= EXACT
    assert difference(trained["adamw"], trained["checkpointing"]) <= EXACT


def test_dropout_is_one_in_a_tensor_parallel_group_and_another_in_each_replica(trained):
    first, second = trained["dropout"]["rank_losses"]
    assert first == pytest.approx(second, abs=EXACT)
    assert difference(trained["dropout"], trained["adamw"]) > 100 * EXACT
    seeds = trained["tensor 2 zero 1"]["seeds"]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def every_case() -> Cases:
    """Every family and task under every strategy, with and without clipping."""
    cases = Cases()
    layouts = [(2, 1, stage) for stage in STAGES] + [(2, 2, stage) for stage in STAGES]
    for family in ENCODERS:
        for task in ENCODER_TASKS:
            for recipe, row in ({}, {}), (PLAIN, {**SGD, "grad_accum": 2}):
                for data, tensor, stage in [*layouts, (1, 2, 0), (1, 4, 0), (4, 1, 3)]:
                    name = json.dumps([family, task, data, tensor, stage, recipe])
                    cases.add(name, data, tensor, stage, recipe, **row, model_type=family, task=task)
    return cases


@pytest.mark.long
def test_every_family_and_task_under_every_strategy(small_dataset, training_environment, tmp_path):
    cases = every_case() | more_cases()
    found = train(cases, small_dataset, tmp_path, training_environment)
    compared = [name for name, case in cases.items() if "reference" in case]
    assert len(compared) == 4 * 3 * 2 * 11 + 10
    for name in compared:
        check(found, cases, name)
