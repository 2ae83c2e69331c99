"""ViT: parameters, FLOP, traffic and activations against transformers' model on the meta device."""

import random

import pytest
import torch
import transformers
from jouleline.architecture import proxies
from jouleline.architecture.counter import count_step, flops_from_counter
from jouleline.architecture.memory import peak_memory
from memory_counter import count_passes, saved_byte

VARIANTS = ("full", "frozen", "all frozen", "lora", "lora above frozen")
VARIANTS += tuple(f"{one} checkpointed" for one in VARIANTS)
TARGETS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj", "up": "fc1", "down": "fc2"}


def draw(variant: str, seed: int) -> dict:
    rng = random.Random(f"{variant} {seed}")
    heads, patch, layers = rng.choice([2, 4, 6]), rng.choice([4, 8, 16]), rng.choice([2, 3])
    row = {"model_type": "vit", "layers": layers, "hidden": 16 * heads, "heads": heads}
    row |= {
        "intermediate": rng.choice([56, 128]),
        "patch_size": patch,
        "image_size": patch * rng.choice([2, 6]),
    }
    row |= {"seq_len": (row["image_size"] // patch) ** 2 + 1, "micro_batch": rng.choice([1, 3])}
    row |= {"num_labels": rng.choice([2, 10]), "attention": "eager", "precision": "fp32"}
    row["gradient_checkpointing"] = "checkpointed" in variant
    row["frozen_layers"] = layers if "all frozen" in variant else 1 if "frozen" in variant else 0
    if "lora" in variant:
        parts = rng.sample(sorted(TARGETS), rng.randint(1, 4))
        row |= {"lora_rank": rng.choice([4, 8]), "lora_targets": ",".join(parts)}
    return row


def build(row: dict) -> torch.nn.Module:
    names = {"num_hidden_layers": "layers", "hidden_size": "hidden", "num_attention_heads": "heads"}
    names |= {
        "intermediate_size": "intermediate",
        "attn_implementation": "attention",
        "num_labels": "num_labels",
    }
    names |= {"image_size": "image_size", "patch_size": "patch_size"}
    with torch.device("meta"):
        config = transformers.ViTConfig(**{name: row[column] for name, column in names.items()})
        model = transformers.ViTForImageClassification(config)
    lora, frozen = row.get("lora_rank"), row.get("frozen_layers", 0)
    for name, parameter in model.named_parameters():
        below = ".embeddings." in name or any(f".layers.{layer}." in name for layer in range(frozen))
        if lora or frozen:
            parameter.requires_grad_(name.startswith("classifier") or not (lora or below))
    if lora:
        from peft import LoraConfig, inject_adapter_in_model

        modules = [TARGETS[part] for part in row["lora_targets"].split(",")]
        layers = list(range(frozen, row["layers"]))
        config = LoraConfig(r=lora, target_modules=modules, layers_to_transform=layers)
        inject_adapter_in_model(config, model)
        for parameter in model.classifier.parameters():
            parameter.requires_grad_(True)
    if row.get("gradient_checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_and_flop_are_those_of_the_model(variant):
    for seed in range(2):
        row = draw(variant, seed)
        counted, found = count_step(build(row), "classification", 0, row["micro_batch"]), proxies(row)
        for name in ("parameters", "trainable_parameters"):
            assert found[name] == counted[name], (name, row)
        assert found["compute_flop"] == counted["training_flop"], row


BASE = {"model_type": "vit", "layers": 4, "hidden": 384, "heads": 6, "intermediate": 1536, "seq_len": 197}
BASE |= {"image_size": 224, "patch_size": 16, "micro_batch": 4, "num_labels": 2, "precision": "fp32"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_traffic_and_activations_are_those_of_the_kernels(attention):
    row = BASE | {"attention": attention}
    more = row | {"micro_batch": 16}
    image = [torch.empty(one["micro_batch"], 3, 224, 224, device="meta") for one in (row, more)]
    labels = [torch.empty(one["micro_batch"], dtype=torch.long, device="meta") for one in (row, more)]
    given = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(image, labels, strict=True)]
    counted = [count_passes(build(row), one) for one in given]
    found = proxies(more)["memory_byte"] - proxies(row)["memory_byte"]
    assert found / (counted[1] - counted[0]) == pytest.approx(1, abs=0.03)
    deeper = more | {"layers": 5, "optimizer": "sgd"}
    kept = saved_byte(build(deeper), given[1]) - saved_byte(build(more), given[1])
    part = [peak_memory(one | {"optimizer": "sgd"})["activations"] for one in (more, deeper)]
    assert (part[1] - part[0]) / kept == pytest.approx(1, abs=0.01)


def test_the_published_shapes_have_the_published_sizes():
    # Dosovitskiy et al. 2021, table 1: Base 86 M, Large 307 M parameters.
    large = {"layers": 24, "hidden": 1024, "heads": 16, "intermediate": 4096}
    base = {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072}
    assert proxies(BASE | base)["parameters"] == pytest.approx(86e6, rel=0.01)
    assert proxies(BASE | large)["parameters"] == pytest.approx(307e6, rel=0.015)


def test_a_config_is_counted_without_a_description():
    config = transformers.ViTConfig(num_hidden_layers=4, hidden_size=384, num_attention_heads=6)
    config.intermediate_size = 1536
    counted = flops_from_counter(config, "classification", seq_len=197, micro_batch=4)
    # Three times forward, but for the input gradient of the patches.
    assert counted["training_flop"] == pytest.approx(3 * counted["forward_flop"], rel=0.03)
    assert counted["training_flop"] == pytest.approx(proxies(BASE)["compute_flop"])
