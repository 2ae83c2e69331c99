"""The closed formulas against the trainer's own models, counted by torch on the meta device."""

import random

import pytest
import torch
import transformers
from jouleline.architecture import proxies
from jouleline.architecture.counter import count_step, flops_from_counter
from jouleline.campaign import grid
from jouleline.errors import UserError
from jouleline.measure.train import modeling
from torch.utils._python_dispatch import TorchDispatchMode

FAMILIES = ("bert", "roberta", "distilbert", "electra")
TASKS = ("classification", "qa", "mlm")
TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
VARIANTS = ("full", "frozen", "all frozen", "lora", "lora above frozen")


def draw(seed: int) -> dict:
    """A row; family, head, variant and checkpointing run through all their combinations."""
    rng = random.Random(seed)
    seed, family = divmod(seed, len(FAMILIES))
    seed, task = divmod(seed, len(TASKS))
    checkpointing, variant = divmod(seed, len(VARIANTS))
    layers = rng.choice([2, 3, 5])
    hidden = rng.choice([64, 128, 192, 384, 768])
    frozen = {"frozen": 1, "all frozen": layers, "lora above frozen": 1}.get(VARIANTS[variant], 0)
    return grid.complete_row(
        {
            **{"model_type": FAMILIES[family], "task": TASKS[task], "layers": layers, "hidden": hidden},
            **{"heads": rng.choice([2, 4, 8]), "intermediate": rng.choice([1, 2, 4]) * hidden},
            **{"seq_len": rng.choice([8, 32, 128, 384]), "micro_batch": rng.choice([1, 3, 16])},
            **{"vocab_size": rng.choice([512, 8192, 30522]), "num_labels": rng.choice([2, 3, 20])},
            **{
                "attention": "eager",
                "frozen_layers": frozen,
                "gradient_checkpointing": checkpointing % 2 == 1,
            },
            "lora_rank": rng.choice([4, 16]) if "lora" in VARIANTS[variant] else 0,
            "lora_targets": ",".join(rng.sample(TARGETS, rng.randint(1, 4))),
        }
    )


def deviation(row: dict) -> float:
    """Relative deviation of compute_flop; the parameters must be exactly those of the model."""
    with torch.device("meta"):
        model = modeling.build(row, row["num_labels"], 0, modeling.Recipe())
    counted = count_step(model, row["task"], row["seq_len"], row["micro_batch"])
    found = proxies(row)
    assert found["parameters"] == counted["parameters"], row
    assert found["trainable_parameters"] == counted["trainable_parameters"], row
    return abs(found["compute_flop"] / counted["training_flop"] - 1)


@pytest.mark.parametrize("seed", range(0, 120, 5))
def test_compute_and_parameters_are_those_of_the_model(seed):
    row = draw(seed)
    assert deviation(row) < 0.005, row


@pytest.mark.long
def test_compute_and_parameters_over_240_shapes():
    worst = max(deviation(draw(seed)) for seed in range(240))
    assert worst < 0.005


class Products(TorchDispatchMode):
    """Counts the matrix products that are started."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "change", [{}, {"gradient_checkpointing": True}, {"task": "qa"}, {"frozen_layers": 2}]
)
def test_launches_are_the_products_that_are_started(change):
    shape = {"layers": 4, "hidden": 64, "heads": 2, "intermediate": 128, "seq_len": 16, "micro_batch": 2}
    row = grid.complete_row(shape | {"attention": "eager", "num_labels": 2} | change)
    with torch.device("meta"):
        model = modeling.build(row, 2, 0, modeling.Recipe())
    with Products() as products:
        count_step(model, row["task"], 16, 2)
    # Frozen parts save the input gradients of the lowest trained layer, which the nominal multiples keep.
    assert proxies(row)["matmul_launches"] == products.count + (3 if change.get("frozen_layers") else 0)


def test_frozen_layers_cost_no_backward_pass_under_checkpointing():
    row = draw(0) | {"frozen_layers": 1, "gradient_checkpointing": True}
    assert deviation(row) < 0.005
    assert proxies(row)["compute_flop"] < proxies(row | {"frozen_layers": 0})["compute_flop"]


def test_any_other_architecture_is_counted():
    config = transformers.AutoConfig.for_model("mpnet", num_hidden_layers=2)
    counted = flops_from_counter(config, "classification", seq_len=64, micro_batch=2)
    # MPNet is BERT with relative positions: the same products, so BERT's formula must give the same count.
    bert = {"layers": 2, "hidden": 768, "heads": 12, "intermediate": 3072, "seq_len": 64, "micro_batch": 2}
    assert counted["training_flop"] == pytest.approx(proxies(bert)["compute_flop"], rel=1e-3)
    assert counted["training_flop"] == pytest.approx(3 * counted["forward_flop"], rel=1e-6)


@pytest.mark.parametrize(("kind", "task"), [("gpt2", "mlm"), ("bert", "translation")])
def test_what_cannot_be_counted_is_said_in_one_line(kind, task):
    with pytest.raises(UserError, match=r"cannot be counted|use one of") as caught:
        flops_from_counter(transformers.AutoConfig.for_model(kind, num_hidden_layers=1), task, seq_len=16)
    assert "\n" not in str(caught.value)
