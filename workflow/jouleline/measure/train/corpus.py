"""The data for fine-tuning: real data, tokenised once per data set and vocabulary.

Three data sets need no network. `docstrings`, for encoders, has the docstrings of Python's standard library; the label
is the family of the module. `source`, for decoders, has the whole text of the same modules. `images` has the same
modules, each byte a pixel. `glue/<task>` is read through the `datasets` package. A vocabulary is trained on the
training texts, or taken from a checkpoint.
"""

import ast
import hashlib
import json
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from jouleline.errors import UserError
from jouleline.files import atomic_path, reading, write_text
from jouleline.measure.train import vocabulary

MAX_TOKENS = 512
SOURCE = "source"
IMAGES = "images"
IMAGE_SIDE = 64  # pixels of a stored image
METADATA_KEY = b"jouleline"
_EVAL_SHARE = 5  # one text in five is held out
_MIN_CHARACTERS = 30
# Only modules in every package of CPython: tkinter and distutils are separate packages on Debian.
_MODULE_FAMILIES = {
    "concurrency": "asyncio concurrent multiprocessing queue sched selectors subprocess threading",
    "mail": "email imaplib mailbox nntplib poplib smtplib",
    "web": "cgi ftplib html http socketserver urllib webbrowser wsgiref xml xmlrpc",
    "numbers": "_pydecimal calendar datetime fractions ipaddress numbers random statistics",
    "introspection": "ast dataclasses dis enum importlib inspect pkgutil typing",
    "testing": "bdb doctest logging pdb pydoc trace unittest",
    "files": "_pyio codecs encodings filecmp os pathlib shutil tarfile tempfile zipfile",
}
# The two text columns of each GLUE task and its held-out split, by the names in the data set's card.
GLUE_COLUMNS = {
    "cola": ("sentence", None),
    "sst2": ("sentence", None),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "qnli": ("question", "sentence"),
    "mnli": ("premise", "hypothesis"),
}


@dataclass(frozen=True)
class Corpus:
    """Labelled texts: (text, optional second text, label index, "train" or "eval") and the labels' names."""

    source: str
    labels: tuple[str, ...]
    rows: list[tuple[str, str | None, int, str]]


def prepare(
    dataset: str, vocab_size: int, seed: int, out: Path, tokenizer_out: Path, checkpoint: str | None = None
) -> None:
    """Write `dataset` as Parquet to `out` and its tokenizer as JSON to `tokenizer_out`.

    Columns of labelled texts: input_ids list<int32> (at most 512, with [CLS] and [SEP]), label int32, split ("train"
    or "eval"). A text of `source` has no label and is whole, with the end mark. `images` has a column image (bytes, one
    per pixel) instead of the ids. The schema metadata holds one JSON object under "jouleline": source, labels,
    num_labels, vocab_size, the special ids, and `kind` where the data is no labelled text.

    The same arguments and Python give the same data. With `checkpoint` (a folder or hub name) its tokenizer is used.
    Images have no tokenizer; the file says null. Raises UserError where the data is not available.
    """
    make = {SOURCE: _packed, IMAGES: _images}.get(dataset, _labelled)
    columns, facts, tokenizer = make(dataset, vocab_size, seed, checkpoint)
    facts |= {"dataset": dataset, "seed": seed, "checkpoint": checkpoint}
    facts |= {"vocab_size": tokenizer.get_vocab_size() if tokenizer else None}
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(facts, sort_keys=True)})
    write_text(tokenizer_out, tokenizer.to_str(pretty=False) if tokenizer else "null\n")
    with atomic_path(out) as temporary:
        pq.write_table(table, temporary, compression="zstd")


Made = tuple[dict[str, pa.Array], dict[str, Any], Tokenizer | None]
"""Columns, facts and tokenizer."""


def _labelled(dataset: str, vocab_size: int, seed: int, checkpoint: str | None) -> Made:
    corpus = _read(dataset, seed)
    if checkpoint:
        tokenizer, _ = vocabulary.of_checkpoint(checkpoint)
    else:
        texts = (text for row in corpus.rows if row[3] == "train" for text in row[:2] if text)
        tokenizer = vocabulary.train_wordpiece(texts, vocab_size)
    special = vocabulary.special_ids(tokenizer)
    columns = {
        "input_ids": pa.array(_encode(tokenizer, corpus, special), pa.list_(pa.int32())),
        "label": pa.array([row[2] for row in corpus.rows], pa.int32()),
        "split": pa.array([row[3] for row in corpus.rows], pa.string()),
    }
    facts = {"source": corpus.source, "labels": list(corpus.labels), "num_labels": len(corpus.labels)}
    return columns, facts | special, tokenizer


def _packed(_dataset: str, vocab_size: int, seed: int, checkpoint: str | None) -> Made:
    texts = [(text, split) for text, _, split in _read_modules(seed)]
    if checkpoint:
        tokenizer, end = vocabulary.of_checkpoint(checkpoint)
        if end is None:
            raise UserError(
                f"the tokenizer of checkpoint {checkpoint!r} has no end of text; name one as its eos_token"
            )
    else:
        tokenizer = vocabulary.train_bytes((text for text, split in texts if split == "train"), vocab_size)
        end = tokenizer.token_to_id(vocabulary.END_TOKEN)
    encoded = tokenizer.encode_batch([text for text, _ in texts], add_special_tokens=False)
    columns = {
        "input_ids": pa.array([[*one.ids, end] for one in encoded], pa.list_(pa.int32())),
        "split": pa.array([split for _, split in texts], pa.string()),
    }
    source = f"source text of the standard library of Python {sys.version.split()[0]}"
    facts = {"source": source, "kind": "packed", "end_id": end, "pad_id": None, "labels": None}
    return columns, facts | {"num_labels": None}, tokenizer


def _images(_dataset: str, _vocab_size: int, seed: int, checkpoint: str | None) -> Made:
    """Modules drawn as pictures: each byte is a grey pixel, and the label is the family of the module.

    Nataraj et al. 2011 ("Malware images") classify programs by such pictures. A module fills as many pictures as it has
    bytes for.
    """
    labels = tuple(_MODULE_FAMILIES)
    size, images = IMAGE_SIDE**2, []
    for text, label, split in _read_modules(seed):
        content = text.encode()
        images += [(content[at : at + size], label, split) for at in range(0, len(content) - size + 1, size)]
    images.sort(key=lambda image: hashlib.sha256(image[0]).digest())  # mixes labels within a batch
    columns = {
        "image": pa.array([image for image, _, _ in images], pa.binary()),
        "label": pa.array([label for _, label, _ in images], pa.int32()),
        "split": pa.array([split for _, _, split in images], pa.string()),
    }
    source = f"source text of the standard library of Python {sys.version.split()[0]} as images"
    facts = {"source": source, "kind": "images", "pad_id": None}
    return columns, facts | {"labels": list(labels), "num_labels": len(labels)}, None


def read_facts(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in the metadata of a prepared data set, checked against the row that will be trained on it.

    Raises UserError: the file is no such data set, the tokens are those of another checkpoint, the vocabulary is larger
    than the model's, or the row has fewer labels than the data.
    """
    with reading(path, "a prepared dataset", "make it with prepare_dataset.py"):
        facts = json.loads((pq.read_schema(path).metadata or {}).get(METADATA_KEY, b""))
    if facts.get("checkpoint") != row["checkpoint"]:
        raise UserError(
            f"{path} has the tokens of {facts.get('checkpoint') or 'a vocabulary of its own'}, the row starts from "
            f"{row['checkpoint'] or 'no checkpoint'}; prepare the dataset with the row's checkpoint"
        )
    kind = facts.get("kind", "labelled text")
    wanted = "images" if row["model_type"] == "vit" else "packed" if row["task"] == "clm" else "labelled text"
    if kind != wanted:
        raise UserError(
            f"{path} holds {kind}, task {row['task']} of {row['model_type']} needs {wanted}; correct the row's dataset"
        )
    if facts["vocab_size"] is not None and facts["vocab_size"] > row["vocab_size"]:
        raise UserError(
            f"{path} has {facts['vocab_size']} token ids, the row's vocab_size is {row['vocab_size']}; "
            "prepare the dataset with the row's vocab_size"
        )
    labels = row["num_labels"]
    if row["task"] == "classification" and labels is not None and labels < facts["num_labels"]:
        raise UserError(f"num_labels is {labels}, {path} has {facts['num_labels']}; raise it or give null")
    return facts


def _read(dataset: str, seed: int) -> Corpus:
    name, _, task = dataset.partition("/")
    if dataset == "docstrings":
        return read_docstrings(seed)
    if name == "glue" and task in GLUE_COLUMNS:
        return _read_glue(task)
    known = ", ".join(["docstrings", SOURCE, IMAGES, *(f"glue/{name}" for name in GLUE_COLUMNS)])
    raise UserError(f"dataset {dataset!r} is unknown; use one of {known}")


def read_docstrings(seed: int, root: Path | None = None) -> Corpus:
    """Docstrings of the standard library under `root` (this Python's by default), each text once.

    Raises UserError where a family has no text (a Python without its library).
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    labels = tuple(_MODULE_FAMILIES)
    rows: dict[str, int] = {}
    for label, family in enumerate(labels):
        paths = list(_modules(root, family))
        texts = [text for path in paths for text in _docstrings(path)]
        if len(texts) < 2 * _EVAL_SHARE:
            raise UserError(
                f"no docstrings of {family} modules under {root}; use a Python with its whole library"
            )
        for text in texts:
            rows.setdefault(text, label)
    ordered = [(text, None, rows[text], split) for text, split in _shuffled(rows, seed)]
    return Corpus(f"docstrings of the standard library of Python {sys.version.split()[0]}", labels, ordered)


def _read_modules(seed: int, root: Path | None = None) -> list[tuple[str, int, str]]:
    """(whole text, label, split) of each module that `read_docstrings` reads, each text once.

    Raises UserError alike.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    texts: dict[str, int] = {}
    for label, family in enumerate(_MODULE_FAMILIES):
        found = len(texts)
        for path in _modules(root, family):
            with tokenize.open(path) as file:  # uses the encoding that the module declares
                texts.setdefault(file.read(), label)
        if len(texts) == found:
            raise UserError(
                f"no source of {family} modules under {root}; use a Python with its whole library"
            )
    return [(text, texts[text], split) for text, split in _shuffled(texts, seed)]


def _shuffled(texts: Iterable[str], seed: int) -> list[tuple[str, str]]:
    """(text, split). A hash of the text and `seed` decides the order and the held-out fifth, so the file system does
    not matter."""
    keyed = sorted((hashlib.sha256(f"{seed}\n{text}".encode()).digest(), text) for text in texts)
    return [(text, "train" if index % _EVAL_SHARE else "eval") for index, (_, text) in enumerate(keyed)]


def _modules(root: Path, family: str) -> Iterator[Path]:
    """The files of a family's modules, without their tests."""
    for module in _MODULE_FAMILIES[family].split():
        folder = root / module
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [root / f"{module}.py"]:
            if path.is_file() and not {"test", "tests"} & set(path.relative_to(root).parts):
                yield path


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():  # old modules have old escapes
        warnings.simplefilter("ignore")
        tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split())
            if len(text) >= _MIN_CHARACTERS:
                yield text


def _read_glue(task: str) -> Corpus:
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset("nyu-mll/glue", task)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"GLUE task {task} cannot be loaded ({type(error).__name__}: {reason}); connect to the network, "
            "copy a datasets cache to HF_HOME, or use dataset: docstrings"
        ) from error
    first, second = GLUE_COLUMNS[task]
    held_out = "validation_matched" if task == "mnli" else "validation"
    rows = [
        (record[first], record[second] if second else None, record["label"], split)
        for source, split in (("train", "train"), (held_out, "eval"))
        for record in loaded[source]
    ]
    return Corpus(f"nyu-mll/glue {task}", tuple(loaded["train"].features["label"].names), rows)


def _encode(tokenizer: Tokenizer, corpus: Corpus, special: dict[str, int]) -> list[list[int]]:
    """Token ids of every row: [CLS] first [SEP] (second [SEP]), cut to 512 with the last [SEP] kept."""
    parts: Sequence[Any] = [
        tokenizer.encode_batch([row[column] or "" for row in corpus.rows], add_special_tokens=False)
        for column in (0, 1)
    ]
    encoded = []
    for first, second in zip(*parts, strict=True):
        body = [*first.ids, special["sep_id"], *second.ids] if second.ids else first.ids
        encoded.append([special["cls_id"], *body[: MAX_TOKENS - 2], special["sep_id"]])
    return encoded
