"""The texts that are fine-tuned on: real, labelled, tokenised once per dataset and vocabulary.

`docstrings` needs no network: the docstrings of Python's own standard library, labelled by the family of
the module they stand in. `glue/<task>` is read through the `datasets` package. A WordPiece vocabulary is
trained on the spot from the training texts (or taken from a checkpoint).
"""

import ast
import hashlib
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jouleline.errors import UserError
from jouleline.files import atomic_path, write_text

MAX_TOKENS = 512
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
METADATA_KEY = b"jouleline"
_EVAL_SHARE = 5  # one text in five is held out
_MIN_CHARACTERS = 30
# Only modules that every packaging of CPython has: tkinter and distutils are separate packages on Debian.
_MODULE_FAMILIES = {
    "concurrency": "asyncio concurrent multiprocessing queue sched selectors subprocess threading",
    "mail": "email imaplib mailbox nntplib poplib smtplib",
    "web": "cgi ftplib html http socketserver urllib webbrowser wsgiref xml xmlrpc",
    "numbers": "_pydecimal calendar datetime fractions ipaddress numbers random statistics",
    "introspection": "ast dataclasses dis enum importlib inspect pkgutil typing",
    "testing": "bdb doctest logging pdb pydoc trace unittest",
    "files": "_pyio codecs encodings filecmp os pathlib shutil tarfile tempfile zipfile",
}
# The two text columns of each GLUE task and its held-out split, as the dataset card names them.
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

    Columns: input_ids list<int32> (at most 512 tokens, with [CLS] and [SEP]), label int32, split ("train" or
    "eval"). The schema metadata holds one JSON object under "jouleline": source, labels, num_labels,
    vocab_size and the special ids. The same arguments and Python give the same data. With `checkpoint` (a
    folder or hub name) its tokenizer is used instead. Raises UserError where the data cannot be had.
    """
    corpus = _read(dataset, seed)
    tokenizer = _checkpoint_tokenizer(checkpoint) if checkpoint else _train_wordpiece(corpus, vocab_size)
    special = _special_ids(tokenizer)
    facts = {
        "dataset": dataset,
        "source": corpus.source,
        "seed": seed,
        "checkpoint": checkpoint,
        "labels": list(corpus.labels),
        "num_labels": len(corpus.labels),
        "vocab_size": tokenizer.get_vocab_size(),
        **special,
    }
    table = pa.table(
        {
            "input_ids": pa.array(_encode(tokenizer, corpus, special), pa.list_(pa.int32())),
            "label": pa.array([row[2] for row in corpus.rows], pa.int32()),
            "split": pa.array([row[3] for row in corpus.rows], pa.string()),
        }
    ).replace_schema_metadata({METADATA_KEY: json.dumps(facts, sort_keys=True)})
    write_text(tokenizer_out, tokenizer.to_str(pretty=False))
    with atomic_path(out) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_facts(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in the metadata of a prepared dataset, checked against the row that is to be trained on it.

    Raises UserError for a file that is not such a dataset, another checkpoint's tokens, a vocabulary larger than
    the model's, or fewer labels in the row than in the data.
    """
    try:
        facts = json.loads((pq.read_schema(path).metadata or {})[METADATA_KEY])
    except (OSError, KeyError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not one of its files"
        raise UserError(
            f"{path} is not a prepared dataset ({reason}); make it with prepare_dataset.py"
        ) from error
    if facts.get("checkpoint") != row["checkpoint"]:
        raise UserError(
            f"{path} has the tokens of {facts.get('checkpoint') or 'a vocabulary of its own'}, the row starts from "
            f"{row['checkpoint'] or 'no checkpoint'}; prepare the dataset with the row's checkpoint"
        )
    if facts["vocab_size"] > row["vocab_size"]:
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
    known = ", ".join(["docstrings", *(f"glue/{name}" for name in GLUE_COLUMNS)])
    raise UserError(f"dataset {dataset!r} is unknown; use one of {known}")


def read_docstrings(seed: int, root: Path | None = None) -> Corpus:
    """Docstrings of the standard library under `root` (this Python's by default), each text once.

    The order and the held-out fifth come from a hash of the text and `seed`, so they do not depend on the
    file system. Raises UserError where a family has no text (a Python without its library).
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    labels = tuple(_MODULE_FAMILIES)
    rows: dict[str, tuple[str, str | None, int, str]] = {}
    for label, family in enumerate(labels):
        texts = [text for module in _MODULE_FAMILIES[family].split() for text in _docstrings(root, module)]
        if len(texts) < 2 * _EVAL_SHARE:
            raise UserError(
                f"no docstrings of {family} modules under {root}; use a Python with its whole library"
            )
        for text in texts:
            rows.setdefault(text, (text, None, label, ""))
    keyed = sorted((hashlib.sha256(f"{seed}\n{text}".encode()).digest(), text) for text in rows)
    ordered = [
        (*rows[text][:3], "eval" if index % _EVAL_SHARE == 0 else "train")
        for index, (_, text) in enumerate(keyed)
    ]
    return Corpus(f"docstrings of the standard library of Python {sys.version.split()[0]}", labels, ordered)


def _docstrings(root: Path, module: str) -> Iterator[str]:
    folder = root / module
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [root / f"{module}.py"]
    for path in paths:
        if not path.is_file() or {"test", "tests"} & set(path.relative_to(root).parts):
            continue
        with warnings.catch_warnings():  # old escapes in old modules
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


def _train_wordpiece(corpus: Corpus, vocab_size: int) -> Tokenizer:
    if vocab_size < 256:
        raise UserError(f"vocab_size {vocab_size} is too small for a WordPiece vocabulary; give at least 256")
    trained = _bare_tokenizer(models.WordPiece(unk_token="[UNK]"))
    # The trainer numbers letters inside a word in the order of a hash map, and breaks ties by these numbers:
    # handing all of them in as special tokens fixes the numbers, so the same texts give the same vocabulary.
    letters = [chr(code) for code in range(33, 127) if not 65 <= code <= 90]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        special_tokens=[*SPECIAL_TOKENS, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    texts = (text for row in corpus.rows if row[3] == "train" for text in row[:2] if text)
    trained.train_from_iterator(texts, trainer)
    tokenizer = _bare_tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _bare_tokenizer(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _checkpoint_tokenizer(checkpoint: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer in checkpoint {checkpoint!r}; give a folder or hub name that has one"
        ) from error
    if not loaded.is_fast:
        raise UserError(f"checkpoint {checkpoint!r} has no tokenizer.json; save it with a fast tokenizer")
    return loaded.backend_tokenizer


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids by role, under BERT's names of the special tokens or RoBERTa's."""
    roles = {
        "pad_id": ("[PAD]", "<pad>"),
        "unk_id": ("[UNK]", "<unk>"),
        "cls_id": ("[CLS]", "<s>"),
        "sep_id": ("[SEP]", "</s>"),
        "mask_id": ("[MASK]", "<mask>"),
    }
    found = {}
    for role, names in roles.items():
        ids = [tokenizer.token_to_id(name) for name in names if tokenizer.token_to_id(name) is not None]
        if not ids:
            raise UserError(
                f"the tokenizer has none of {' or '.join(names)}; use one of a BERT-like checkpoint"
            )
        found[role] = ids[0]
    return found


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
