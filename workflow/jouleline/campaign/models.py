"""Shapes of models by name: what `model: NAME` in a row means, and which columns follow from it.

NAME is in models.csv, or is a config.json (or its folder), or is a hub name that `jouleline model` fetched before.
Nothing here uses the network, because every Slurm job reads the campaign again.

models.csv holds published figures. Its sources: litgpt is Lightning-AI/litgpt litgpt/config.py (commit 2685705);
nanoGPT is karpathy/nanoGPT model.py; PaddleNLP is its paddlenlp/transformers/bert/configuration.py;
vision_transformer is google-research/vision_transformer vit_jax/configs/models.py; config.json is the model's own on
its hub. Ties and windows come from config.json too.
"""

import csv
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import parse_json, read_text
from jouleline.schemas.families import FAMILIES
from jouleline.schemas.row import BY_NAME

TABLE = Path(__file__).with_name("models.csv")
FETCHED = Path("config", "models")
"""Where the config.json of a fetched model lies, under its hub name."""

SHAPE = (
    *("model_type", "layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab_size"),
    *("max_positions", "tied", "sliding_window", "image_size", "patch_size"),
)
"""Columns that a name gives."""

# Names of the same figure in the config.json files of different families, the usual one first.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "hidden_dim"),
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings", "n_positions"),
    "tied": ("tie_word_embeddings",),
    "sliding_window": ("sliding_window",),
    "image_size": ("image_size",),
    "patch_size": ("patch_size",),
}


@cache
def known() -> dict[str, dict[str, Any]]:
    """The shapes of models.csv by name, in lower case. A row has only the columns that it gives."""
    with open(TABLE, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return {row["name"]: {n: _from_text(n, row[n]) for n in SHAPE if row[n]} for row in rows}


def _from_text(name: str, text: str) -> Any:
    kind = BY_NAME[name].python_type
    return text == "true" if kind is bool else kind(text)


def shape(name: str, root: Path) -> dict[str, Any]:
    """The columns that a model's name gives. Relative paths start at `root`.

    Raises UserError, one line: the name is unknown (with the nearest ones), the file is no model's, or no row can
    describe the model.
    """
    short = name.rsplit("/", 1)[-1].casefold()
    places = (root / name, root / FETCHED / name)
    for path in places:
        if path.is_dir() or path.suffix == ".json":
            return _read(path / "config.json" if path.is_dir() else path)
    if short in known():
        return dict(known()[short])
    near = ", ".join(get_close_matches(short, known(), n=4, cutoff=0.4)) or ", ".join(sorted(known()))
    raise UserError(
        f"model {name!r} is not known; near it are {near}. Give one of these, a folder with a config.json, or "
        f"fetch it where there is a network: jouleline model ORGANISATION/NAME"
    )


def _read(path: Path) -> dict[str, Any]:
    return parse(read_text(path), str(path))


def parse(text: str, where: str) -> dict[str, Any]:
    """The columns of a model from the text of its config.json. Raises UserError, one line, that names `where`."""
    try:
        told = parse_json(text)
    except ValueError as error:
        raise UserError(f"{where} is no JSON ({error}); give the config.json of a model") from error
    if not isinstance(told, dict):
        raise UserError(f"{where} is no model's config.json; give one with model_type and a shape")
    return from_config(told, where)


def from_config(told: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The columns of a model from the mapping in its config.json. Messages name `where`."""
    if isinstance(told.get("text_config"), Mapping):  # text beside images
        told = {**told["text_config"], "tie_word_embeddings": told.get("tie_word_embeddings")}
    family = str(told.get("model_type", "")).removesuffix("_text")
    if "moe" in family or any(
        key in told for key in ("num_local_experts", "num_experts", "n_routed_experts")
    ):
        raise UserError(
            f"{where} is a mixture of experts ({family}), whose work depends on what it reads; take a dense model"
        )
    if family not in FAMILIES:
        raise UserError(f"{where}: model_type {family!r} is not known; choose from {', '.join(FAMILIES)}")
    found = {
        name: next((told[key] for key in keys if told.get(key) is not None), None)
        for name, keys in _NAMES.items()
    }
    _require_counts(found, where)
    if told.get("word_embed_proj_dim", found["hidden"]) != found["hidden"]:
        raise UserError(f"{where} has embeddings of another width than its layers, which no row says")
    if told.get("do_layer_norm_before") is False:
        raise UserError(f"{where} has its norms after the blocks, which no row says; take another size")
    if told.get("use_sliding_window") is False:
        found["sliding_window"] = None
    if found["intermediate"] is None and family == "gpt2" and found["hidden"]:
        found["intermediate"] = 4 * found["hidden"]
    if family == "roberta" and found["max_positions"]:
        found["max_positions"] -= 2  # two rows of its table stand for padding
    missing = [name for name in ("layers", "hidden", "heads", "intermediate") if found[name] is None]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; give the config.json of a model")
    return {"model_type": family, **{name: value for name, value in found.items() if value is not None}}


def _require_counts(found: Mapping[str, Any], where: str) -> None:
    """Raise UserError for the first figure that is of another kind than its column, or not above 0."""
    for name, value in found.items():
        kind = BY_NAME[name].python_type
        if value is not None and (type(value) is not kind or (kind is int and value < 1)):
            wanted = "true or false" if kind is bool else "a whole number above 0"
            raise UserError(f"{where}: {_NAMES[name][0]} is {value!r}; it must be {wanted}")


def fill(row: Mapping[str, Any], root: Path) -> tuple[dict[str, Any], list[str]]:
    """(row, problems): adds the columns that the row's `model` gives. A column that disagrees is a problem."""
    name = row.get("model")
    if name is None:
        return dict(row), []
    if not isinstance(name, str) or not name:
        return dict(row), [f"model must be text, a name or a path, not {name!r}"]
    try:
        given = shape(name, root)
    except UserError as error:
        return dict(row), [str(error)]
    wrong = [
        f"{column} is {row[column]!r} here and {given[column]!r} in model {name}; leave one out"
        for column in given
        if row.get(column) is not None and row[column] != given[column]
    ]
    return {**row, **{n: value for n, value in given.items() if row.get(n) is None}}, wrong


def follow(row: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Set what follows from a complete row's family, in place: the same measurement is always written the same way.

    `given` is the row as written. Unless it says otherwise, a decoder learns the next token of source text, and a
    ViT the label of an image. A column that repeats what the family has anyway becomes null.
    """
    family = FAMILIES[row["model_type"]]
    if family.causal:
        row["task"] = given.get("task", "clm")
        row["dataset"] = given.get("dataset", "source")
    if family.patches:
        row["dataset"] = given.get("dataset", "images")
    if row["attention"] not in family.attentions:
        row["attention"] = given.get("attention", family.attentions[0])
    if row["kv_heads"] == row["heads"]:
        row["kv_heads"] = None
    if row["head_dim"] is not None and row["head_dim"] * row["heads"] == row["hidden"]:
        row["head_dim"] = None
    if row["tied"] is family.tied:
        row["tied"] = None
