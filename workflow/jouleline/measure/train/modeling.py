"""The model of a row: a transformers encoder or decoder of any shape, with the head of its task.

By default the weights are random, drawn from the row's seed, so every rank has the same weights. Where the row gives
one, they come from a local checkpoint or a hub name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import transformers

from jouleline.campaign.strategy import lora_parts
from jouleline.errors import UserError
from jouleline.schemas.families import FAMILIES, Family

ROBERTA_EXTRA_POSITIONS = 2  # RoBERTa counts positions from its padding id + 1

# transformers builds the name of a class from the family's stem and the head's end.
_STEMS = {
    **{"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "electra": "Electra"},
    **{"gpt2": "GPT2", "opt": "OPT", "gpt_neox": "GPTNeoX", "llama": "Llama", "mistral": "Mistral"},
    **{"qwen2": "Qwen2", "qwen3": "Qwen3", "phi3": "Phi3", "gemma2": "Gemma2", "gemma3": "Gemma3"},
    "vit": "ViT",
}
_HEADS = {
    "classification": "ForSequenceClassification",
    "qa": "ForQuestionAnswering",
    "mlm": "ForMaskedLM",
    "clm": "ForCausalLM",
}
_OTHER_NAMES = {
    "GPT2ForCausalLM": "GPT2LMHeadModel",
    "ViTForSequenceClassification": "ViTForImageClassification",
}
_INNER = {"distilbert": "hidden_dim", "gpt2": "n_inner", "opt": "ffn_dim"}  # else intermediate_size
_BERT_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_DROPOUTS = {
    "bert": _BERT_DROPOUTS,
    "roberta": _BERT_DROPOUTS,
    "electra": (*_BERT_DROPOUTS, "summary_last_dropout"),
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "opt": ("dropout",),
}
_LAYERS = ("layer", "layers", "h")  # names of the list of layers
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "layernorm")


@dataclass(frozen=True)
class Recipe:
    """Settings that are the same in every row: the regularisation of BERT's fine-tuning (Devlin et al. 2019, A.3).

    `dropout` holds for the families that were trained with dropout. The others have none.
    """

    dropout: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


def build(
    row: Mapping[str, Any], num_labels: int | None, pad_id: int | None, recipe: Recipe
) -> torch.nn.Module:
    """The model of `row` on the CPU in fp32, ready to train: heads, frozen parts, adapters, checkpointing.

    `pad_id` is None for packed data, which has no padding. Raises UserError where a checkpoint cannot be read or has
    another shape than the row.
    """
    model_class = class_of(row)
    config = model_class.config_class(**_arguments(row, num_labels, pad_id, recipe))
    torch.manual_seed(row["seed"])
    model = _load(model_class, row, config) if row["checkpoint"] else model_class(config)
    if row["frozen_layers"] or row["lora_rank"]:
        _freeze(model, row)
    if row["gradient_checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # For reentrant checkpoints only, transformers makes the embeddings' output need a gradient. Here that would
        # send the backward pass through frozen layers that need none.
        model.disable_input_require_grads()
    return model


def class_of(row: Mapping[str, Any]) -> type:
    """The model class of transformers. Its first use imports the family's module."""
    name = _STEMS[row["model_type"]] + _HEADS[row["task"]]
    return getattr(transformers, _OTHER_NAMES.get(name, name))


def _arguments(
    row: Mapping[str, Any], num_labels: int | None, pad_id: int | None, recipe: Recipe
) -> dict[str, Any]:
    """The arguments of transformers' configuration. Each family has its own names for some quantities."""
    kind = row["model_type"]
    family = FAMILIES[kind]
    made = {
        "hidden_size": row["hidden"],
        "num_hidden_layers": row["layers"],
        "num_attention_heads": row["heads"],
        _INNER.get(kind, "intermediate_size"): row["intermediate"],
        "attn_implementation": row["attention"],
        **dict.fromkeys(_DROPOUTS.get(kind, ()), recipe.dropout),
    }
    if family.patches:
        made |= {"image_size": row["image_size"], "patch_size": row["patch_size"]}
    else:
        extra = ROBERTA_EXTRA_POSITIONS if kind == "roberta" else 0
        made |= {
            "vocab_size": row["vocab_size"],
            "max_position_embeddings": row["max_positions"] + extra,
            "pad_token_id": pad_id,
        }
    if kind == "roberta":
        made["type_vocab_size"] = 1
    if family.embedding_size is not None:
        made["embedding_size"] = family.embedding_size
    if family.causal:
        return made | _decoder_arguments(row, family)
    # A question-answering head has two outputs per token: start and end.
    return made | {"num_labels": 2 if row["task"] == "qa" else num_labels}


def _decoder_arguments(row: Mapping[str, Any], family: Family) -> dict[str, Any]:
    # The usual ids of these tokens lie outside a small vocabulary. Nothing is generated here, so they are not needed.
    made: dict[str, Any] = {"use_cache": False, "bos_token_id": None, "eos_token_id": None}
    made["tie_word_embeddings"] = family.tied if row["tied"] is None else row["tied"]
    head_dim = row["head_dim"] or row["hidden"] // row["heads"]
    if family.own_kv:
        made["num_key_value_heads"] = row["kv_heads"] or row["heads"]
    if family.own_head_dim:
        made["head_dim"] = head_dim
    if family.windows:
        made["sliding_window"] = row["sliding_window"]
    if 0 < family.windows < 1:
        made["query_pre_attn_scalar"] = head_dim
        # These families must have a window. A window longer than any sequence has no effect.
        made["sliding_window"] = row["sliding_window"] or row["max_positions"] + 1
    return made


def _load(model_class: type, row: Mapping[str, Any], wanted: Any) -> torch.nn.Module:
    try:
        found = model_class.config_class.from_pretrained(row["checkpoint"])
    except (OSError, ValueError) as error:
        raise UserError(
            f"checkpoint {row['checkpoint']!r} cannot be read ({' '.join(str(error).split())[:160]}); "
            "give a folder with config.json and weights, or a hub name that can be reached"
        ) from error
    names = ["model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"]
    names += [_INNER.get(row["model_type"], "intermediate_size"), "max_position_embeddings"]
    if FAMILIES[row["model_type"]].causal:
        names += ["num_key_value_heads", "head_dim", "tie_word_embeddings", "sliding_window"]
    for name in names:
        if _value(found, name) != _value(wanted, name):
            raise UserError(
                f"checkpoint {row['checkpoint']!r} has {name} {_value(found, name)}, the row says "
                f"{_value(wanted, name)}; correct the row"
            )
    # The shape was compared above. Only a head with other labels may differ; it starts anew.
    return model_class.from_pretrained(
        row["checkpoint"], config=wanted, dtype=torch.float32, ignore_mismatched_sizes=True
    )


def _value(config: Any, name: str) -> Any:
    """A quantity of a configuration. GPT-2's null for the feed-forward width means four times the hidden width."""
    value = getattr(config, name, None)
    return 4 * config.hidden_size if name == "n_inner" and value is None else value


def _freeze(model: torch.nn.Module, row: Mapping[str, Any]) -> None:
    """Freeze the embeddings and the lowest layers. With LoRA freeze all layers and adapt those above.

    The head and the norm after the last layer stay trained, except a matrix that is shared with the embeddings. With
    LoRA the norm is frozen, and a decoder's head too, because it is no new head.
    """
    lora, family = row["lora_rank"] > 0, FAMILIES[row["model_type"]]
    for name, parameter in model.named_parameters():
        layer = _layer_of(name)
        if _in_head(name, model):
            trained = not (lora and family.causal)
        elif layer is not None:
            trained = not lora and layer >= row["frozen_layers"]
        else:
            trained = not lora and name.split(".")[-2] in _FINAL_NORMS
        parameter.requires_grad_(trained)
    if lora:
        from peft import LoraConfig, inject_adapter_in_model

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        config = LoraConfig(
            r=row["lora_rank"],
            lora_alpha=2 * row["lora_rank"],
            lora_dropout=0.0,
            target_modules=_adapted_modules(family, row),
            fan_in_fan_out=row["model_type"] == "gpt2",  # its matrices have their inputs first
        )
        inject_adapter_in_model(config, model)  # freezes all but the adapters, so the head is opened again
        for parameter in trained:
            parameter.requires_grad_(True)


def _adapted_modules(family: Family, row: Mapping[str, Any]) -> str:
    """A regular expression, for peft, of the modules that get adapters: in the layers that are not frozen, each matrix
    with one of the parts in `lora_targets`. So a fused matrix gets one adapter."""
    parts = lora_parts(row)
    ends = []
    for matrix, module in zip(family.matrices, family.modules, strict=True):
        if parts.isdisjoint(matrix):
            continue
        # BERT's `output.dense` is also the end of `attention.output.dense`.
        longer = [other.removesuffix(module) for other in family.modules if other.endswith("." + module)]
        ends.append("".join(rf"(?<!{re.escape(before)})" for before in longer) + re.escape(module))
    layers = "|".join(map(str, range(row["frozen_layers"], row["layers"])))
    return rf".*\.(?:{'|'.join(_LAYERS)})\.(?:{layers})\.(?:.*\.)?(?:{'|'.join(ends)})"


def _in_head(name: str, model: torch.nn.Module) -> bool:
    """Whether a parameter belongs to the head: outside the base model, or BERT's pooler inside it."""
    return not name.startswith(model.base_model_prefix + ".") or ".pooler." in name


def _layer_of(name: str) -> int | None:
    """The layer in a parameter's name; None for embeddings and for the norm after the last layer."""
    parts = name.split(".")
    for before, number in pairwise(parts):
        if before in _LAYERS and number.isdigit():
            return int(number)
    return None
