"""The model of a row: a transformers encoder of any shape with the head of its task.

Random initialisation by default, drawn from the row's seed, so every rank holds the same weights; a local
checkpoint or a hub name where the row gives one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers.models.bert import modeling_bert as bert
from transformers.models.distilbert import modeling_distilbert as distilbert
from transformers.models.electra import modeling_electra as electra
from transformers.models.roberta import modeling_roberta as roberta

from jouleline.campaign.strategy import lora_modules
from jouleline.errors import UserError

ELECTRA_EMBEDDING = 128
ROBERTA_EXTRA_POSITIONS = 2  # RoBERTa counts positions from its padding id + 1

_CLASSES = {
    "bert": (
        bert.BertForSequenceClassification,
        bert.BertForQuestionAnswering,
        bert.BertForMaskedLM,
    ),
    "roberta": (
        roberta.RobertaForSequenceClassification,
        roberta.RobertaForQuestionAnswering,
        roberta.RobertaForMaskedLM,
    ),
    "distilbert": (
        distilbert.DistilBertForSequenceClassification,
        distilbert.DistilBertForQuestionAnswering,
        distilbert.DistilBertForMaskedLM,
    ),
    "electra": (
        electra.ElectraForSequenceClassification,
        electra.ElectraForQuestionAnswering,
        electra.ElectraForMaskedLM,
    ),
}
_TASKS = ("classification", "qa", "mlm")


@dataclass(frozen=True)
class Recipe:
    """What is the same in every row: regularisation as BERT was fine-tuned with (Devlin et al. 2019, A.3)."""

    dropout: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


def build(row: Mapping[str, Any], num_labels: int, pad_id: int, recipe: Recipe) -> torch.nn.Module:
    """The model of `row` on the CPU in fp32, ready to train: heads, frozen parts, adapters, checkpointing.

    Raises UserError where a checkpoint cannot be read or has another shape than the row says.
    """
    model_class = _CLASSES[row["model_type"]][_TASKS.index(row["task"])]
    config = _config(model_class.config_class, row, num_labels, pad_id, recipe)
    torch.manual_seed(row["seed"])
    model = _load(model_class, row, config) if row["checkpoint"] else model_class(config)
    if row["frozen_layers"] or row["lora_rank"]:
        _freeze(model, row)
    if row["gradient_checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers makes the embeddings' output need a gradient, for reentrant checkpoints only; here it would
        # send the backward pass through frozen layers that need none.
        model.disable_input_require_grads()
    return model


def _config(config_class: type, row: Mapping[str, Any], num_labels: int, pad_id: int, recipe: Recipe) -> Any:
    """The configuration of transformers; each family has names of its own for the same quantities."""
    common = {
        "vocab_size": row["vocab_size"],
        "max_position_embeddings": row["max_positions"],
        "pad_token_id": pad_id,
        # A question-answering head has two outputs per token: start and end.
        "num_labels": 2 if row["task"] == "qa" else num_labels,
        "attn_implementation": row["attention"],
    }
    if row["model_type"] == "distilbert":
        return config_class(
            dim=row["hidden"],
            n_layers=row["layers"],
            n_heads=row["heads"],
            hidden_dim=row["intermediate"],
            dropout=recipe.dropout,
            attention_dropout=recipe.dropout,
            seq_classif_dropout=recipe.dropout,
            qa_dropout=recipe.dropout,
            **common,
        )
    if row["model_type"] == "roberta":
        common |= {
            "max_position_embeddings": row["max_positions"] + ROBERTA_EXTRA_POSITIONS,
            "type_vocab_size": 1,
        }
    if row["model_type"] == "electra":
        common |= {"embedding_size": ELECTRA_EMBEDDING, "summary_last_dropout": recipe.dropout}
    return config_class(
        hidden_size=row["hidden"],
        num_hidden_layers=row["layers"],
        num_attention_heads=row["heads"],
        intermediate_size=row["intermediate"],
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
        **common,
    )


def _load(model_class: type, row: Mapping[str, Any], wanted: Any) -> torch.nn.Module:
    try:
        found = model_class.config_class.from_pretrained(row["checkpoint"])
    except (OSError, ValueError) as error:
        raise UserError(
            f"checkpoint {row['checkpoint']!r} cannot be read ({' '.join(str(error).split())[:160]}); "
            "give a folder with config.json and weights, or a hub name that can be reached"
        ) from error
    names = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    inner = "hidden_dim" if row["model_type"] == "distilbert" else "intermediate_size"
    for name in (*names, inner, "max_position_embeddings"):
        if getattr(found, name) != getattr(wanted, name):
            raise UserError(
                f"checkpoint {row['checkpoint']!r} has {name} {getattr(found, name)}, the row says "
                f"{getattr(wanted, name)}; correct the row"
            )
    # The encoder's shape was compared above; what may differ is a head with other labels, which starts anew.
    return model_class.from_pretrained(
        row["checkpoint"], config=wanted, dtype=torch.float32, ignore_mismatched_sizes=True
    )


def _freeze(model: torch.nn.Module, row: Mapping[str, Any]) -> None:
    """Freeze the embeddings and the lowest layers; under LoRA freeze all layers and adapt those above.

    The head is always trained, but for a matrix that it shares with the embeddings.
    """
    head = {id(parameter) for name, parameter in model.named_parameters() if _in_head(name, model)}
    for name, parameter in model.base_model.named_parameters():
        below = _layer_of(name)
        frozen = row["lora_rank"] > 0 or below is None or below < row["frozen_layers"]
        if frozen and id(parameter) not in head:
            parameter.requires_grad_(False)
    if row["lora_rank"]:
        from peft import LoraConfig, inject_adapter_in_model

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        config = LoraConfig(
            r=row["lora_rank"],
            lora_alpha=2 * row["lora_rank"],
            lora_dropout=0.0,
            target_modules=lora_modules(row),
            layers_to_transform=list(range(row["frozen_layers"], row["layers"])),
        )
        inject_adapter_in_model(config, model)  # freezes all but the adapters, so the head is opened again
        for parameter in trained:
            parameter.requires_grad_(True)


def _in_head(name: str, model: torch.nn.Module) -> bool:
    """Whether a parameter is the head's: outside of the encoder, or BERT's pooler inside of it."""
    return not name.startswith(model.base_model_prefix + ".") or ".pooler." in name


def _layer_of(name: str) -> int | None:
    """The encoder layer in a parameter's name, None for embeddings."""
    parts = name.split(".")
    for before, number in pairwise(parts):
        if before == "layer" and number.isdigit():
            return int(number)
    return None
