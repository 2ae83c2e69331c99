"""Decoders and image models of transformers on the meta device, made from a row without the library's descriptions."""

import random
from collections.abc import Iterator
from itertools import pairwise

import torch
import transformers

FAMILIES = {
    "gpt2": (transformers.GPT2Config, {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}),
    "opt": (transformers.OPTConfig, {"dropout": 0.1}),
    "gpt_neox": (transformers.GPTNeoXConfig, {}),
    "llama": (transformers.LlamaConfig, {}),
    "mistral": (transformers.MistralConfig, {"sliding_window": 16}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {}),
    "phi3": (transformers.Phi3Config, {"pad_token_id": 0}),
    "gemma2": (transformers.Gemma2Config, {}),
    "gemma3": (transformers.Gemma3TextConfig, {}),
}
OWN_KV = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3")
OWN_DIM = ("llama", "mistral", "qwen3", "gemma2", "gemma3")

# The ends of module names of each part of a layer. A part of a fused matrix has the name of the matrix.
_LLAMA = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
_LLAMA |= {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
MODULES = dict.fromkeys(FAMILIES, _LLAMA)
MODULES["gpt2"] = dict.fromkeys("qkv", "c_attn") | {"o": "attn.c_proj", "up": "c_fc", "down": "mlp.c_proj"}
MODULES["opt"] = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj", "up": "fc1", "down": "fc2"}
MODULES["gpt_neox"] = dict.fromkeys("qkv", "query_key_value")
MODULES["gpt_neox"] |= {"o": "attention.dense", "up": "dense_h_to_4h", "down": "dense_4h_to_h"}
MODULES["phi3"] = dict.fromkeys("qkv", "qkv_proj") | {"o": "o_proj", "down": "down_proj"}
MODULES["phi3"] |= dict.fromkeys(("gate", "up"), "gate_up_proj")


def draw(model_type: str, variant: str, seed: int) -> dict:
    """A random row of a family: full, frozen, all frozen, lora or lora above frozen, each also checkpointed."""
    rng = random.Random(f"{model_type} {variant} {seed}")
    heads, dim, layers = rng.choice([2, 4, 6]), rng.choice([8, 16, 32]), rng.choice([2, 3, 4])
    row = {"model_type": model_type, "task": "clm", "layers": layers, "hidden": heads * dim, "heads": heads}
    row |= {"intermediate": rng.choice([56, 128, 272]), "vocab_size": rng.choice([320, 1000, 4099])}
    row |= {"max_positions": 256, "seq_len": rng.choice([8, 40, 128]), "micro_batch": rng.choice([1, 3])}
    row |= {"attention": "eager", "precision": "fp32", "num_labels": 2}
    if model_type in OWN_KV:
        row["kv_heads"] = rng.choice([k for k in range(1, heads + 1) if heads % k == 0])
    if model_type in OWN_DIM:
        row["head_dim"] = rng.choice([dim, 2 * dim])
    if rng.random() < 0.5:
        row["tied"] = rng.random() < 0.5
    row["gradient_checkpointing"] = "checkpointed" in variant
    row["frozen_layers"] = layers if "all frozen" in variant else 1 if "frozen" in variant else 0
    if "lora" in variant:
        parts = sorted(MODULES[model_type])
        row |= {"lora_rank": rng.choice([4, 8])}
        row["lora_targets"] = ",".join(rng.sample(parts, rng.randint(1, len(parts))))
    return row


def build(row: dict, device: str = "meta", **changes) -> torch.nn.Module:
    """The transformers model of a row, on the meta device or filled with random numbers.

    Frozen layers, adapters (peft) and checkpoints are as the row says.
    """
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(_config(row, **changes))
    _freeze(model, row)
    if row.get("gradient_checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()
    return model.train()


def _config(row: dict, **changes) -> transformers.PreTrainedConfig:
    kind, own = FAMILIES[row["model_type"]]
    names = {"num_hidden_layers": "layers", "hidden_size": "hidden", "num_attention_heads": "heads"}
    names |= {"vocab_size": "vocab_size", "max_position_embeddings": "max_positions"}
    names |= {"gpt2": {"n_inner": "intermediate"}, "opt": {"ffn_dim": "intermediate"}}.get(
        row["model_type"], {"intermediate_size": "intermediate"}
    )
    if row["model_type"] in OWN_KV:
        names |= {"num_key_value_heads": "kv_heads"}
    if row["model_type"] in OWN_DIM:
        names |= {"head_dim": "head_dim"}
    values = {name: row[column] for name, column in names.items() if row.get(column) is not None}
    if row["model_type"] in OWN_KV:
        values.setdefault("num_key_value_heads", row["heads"])
    if row["model_type"] in OWN_DIM:
        values.setdefault("head_dim", row["hidden"] // row["heads"])
    if row["model_type"] == "opt":
        values["word_embed_proj_dim"] = row["hidden"]
    if row.get("tied") is not None:
        values["tie_word_embeddings"] = bool(row["tied"])
    if "sliding_window" in row and row["model_type"] not in ("gpt2", "opt", "gpt_neox"):
        values["sliding_window"] = row["sliding_window"] or row["max_positions"]
    values |= {"use_cache": False, "attn_implementation": row.get("attention", "sdpa")}
    return kind(**own | values | changes)


def _layers(name: str) -> int | None:
    parts = name.split(".")
    return next((int(b) for a, b in pairwise(parts) if a in ("h", "layers") and b.isdigit()), None)


def _frozen(names: Iterator[str], row: dict) -> set[str]:
    """Names of the parameters that do not train: under LoRA all, else the embeddings and the lowest layers."""
    if row.get("lora_rank"):
        return set(names)
    if not row.get("frozen_layers"):
        return set()
    embeddings = ("embed_tokens", "embed_in", "embed_positions", "wte", "wpe")
    return {
        name
        for name in names
        if any(one in name for one in embeddings)
        or (_layers(name) is not None and _layers(name) < row["frozen_layers"])
    }


def _freeze(model: torch.nn.Module, row: dict) -> None:
    frozen = _frozen((name for name, _ in model.named_parameters()), row)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if row.get("lora_rank"):
        from peft import LoraConfig, inject_adapter_in_model

        own = MODULES[row["model_type"]]
        config = LoraConfig(
            r=row["lora_rank"],
            lora_dropout=0.0,
            target_modules=sorted({own[part] for part in row["lora_targets"].split(",")}),
            layers_to_transform=list(range(row.get("frozen_layers", 0), row["layers"])),
            fan_in_fan_out=row["model_type"] == "gpt2",
        )
        inject_adapter_in_model(config, model)
