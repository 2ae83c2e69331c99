"""Prepared data, its targets, and which rank sees which sample."""

import functools
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from jouleline.campaign import strategy
from jouleline.campaign.grid import complete_row
from jouleline.errors import UserError
from jouleline.measure.train import corpus, vocabulary
from jouleline.measure.train.corpus import prepare, read_docstrings, read_facts
from jouleline.measure.train.data import IGNORED, Batches, read_dataset
from paths import SCRIPTS
from tokenizers import Tokenizer

ROW = complete_row(
    {
        **{"layers": 1, "hidden": 16, "heads": 2, "intermediate": 32, "seq_len": 24, "micro_batch": 3},
        **{"vocab_size": 512, "max_positions": 32},
    }
)
CPU = torch.device("cpu")
SCRIPT = SCRIPTS / "prepare_dataset.py"


@pytest.fixture(scope="module")
def facts(small_dataset):
    return read_facts(small_dataset, ROW)


def test_the_same_arguments_give_the_same_bytes(small_dataset, tmp_path):
    command = [sys.executable, str(SCRIPT), "--dataset", "docstrings", "--vocab-size", "512", "--seed"]
    for seed in (0, 1):
        files = ["--out", str(tmp_path / f"{seed}.parquet"), "--tokenizer", str(tmp_path / f"{seed}.json")]
        subprocess.run([*command, str(seed), *files], check=True)
    tokenizer = small_dataset.with_name("tokenizer.json")
    assert (tmp_path / "0.parquet").read_bytes() == small_dataset.read_bytes()
    assert (tmp_path / "0.json").read_bytes() == tokenizer.read_bytes()
    assert (tmp_path / "1.parquet").read_bytes() != small_dataset.read_bytes()


def test_unknown_dataset_is_one_clear_line(tmp_path):
    files = ["--out", str(tmp_path / "d.parquet"), "--tokenizer", str(tmp_path / "t.json")]
    command = [sys.executable, str(SCRIPT), "--dataset", "glue/none", "--vocab-size", "512", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: dataset 'glue/none' is unknown")
    assert done.stderr.count("\n") == 1


def test_glue_without_a_network_is_one_clear_line(tmp_path):
    files = ["--out", str(tmp_path / "d.parquet"), "--tokenizer", str(tmp_path / "t.json")]
    command = [sys.executable, str(SCRIPT), "--dataset", "glue/sst2", "--vocab-size", "512", *files]
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "copy a datasets cache to HF_HOME" in done.stderr
    assert done.stderr.count("\n") == 1


def test_documents_are_real_labelled_and_apart(small_dataset, facts):
    documents = read_docstrings(seed=0)
    texts = [row[0] for row in documents.rows]
    assert len(set(texts)) == len(texts) > 2000  # none is in both splits
    assert facts["labels"] == list(documents.labels) and len(documents.labels) == 7
    tokenizer = Tokenizer.from_file(str(small_dataset.with_name("tokenizer.json")))
    table = pq.read_table(small_dataset)
    assert set(table["split"].to_pylist()) == {"train", "eval"}
    for index in (0, 100, 2000):
        ids = table["input_ids"][index].as_py()
        assert (ids[0], ids[-1]) == (facts["cls_id"], facts["sep_id"]) and max(ids) < 512
        words = set(tokenizer.decode(ids).split())
        assert len(words & set(texts[index].lower().split())) >= 3
        assert table["label"][index].as_py() == documents.rows[index][2]


def test_a_corpus_without_modules_is_refused(tmp_path):
    with pytest.raises(UserError, match="no docstrings of concurrency"):
        read_docstrings(0, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"), [({"vocab_size": 100}, "vocab_size"), ({"num_labels": 3}, "null")]
)
def test_dataset_that_does_not_fit_the_row_is_refused(small_dataset, change, said):
    with pytest.raises(UserError, match=said):
        read_facts(small_dataset, {**ROW, **change})


def test_a_file_that_is_no_dataset_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("not parquet")
    for name, said in (("text.parquet", "is not a prepared dataset"), ("none.parquet", "missing file")):
        with pytest.raises(UserError, match=said):
            read_facts(tmp_path / name, ROW)


def test_samples_are_padded_to_seq_len_and_keep_their_last_separator(small_dataset, facts):
    data = read_dataset(small_dataset, ROW)
    stored = pq.read_table(small_dataset).to_pydict()
    train = [ids for ids, split in zip(stored["input_ids"], stored["split"], strict=True) if split == "train"]
    assert data.train.inputs.shape == (len(train), 24)
    for index in range(0, len(train), 97):
        ids, padded = train[index], data.train.inputs[index].tolist()
        used = min(len(ids), 24)
        assert padded[: used - 1] == ids[: used - 1] and padded[used - 1] == facts["sep_id"]
        assert set(padded[used:]) <= {facts["pad_id"]}


def test_masked_tokens_are_a_sixth_and_can_be_recovered(small_dataset, facts):
    plain = read_dataset(small_dataset, ROW).train.inputs
    masked = read_dataset(small_dataset, {**ROW, "task": "mlm"}).train
    labels = masked.targets["labels"]
    chosen = labels != IGNORED
    special = np.isin(plain, [facts["pad_id"], facts["cls_id"], facts["sep_id"]])
    assert chosen.any(axis=1).all() and not (chosen & special).any()
    assert (labels[chosen] == plain[chosen]).all() and (masked.inputs[~chosen] == plain[~chosen]).all()
    assert chosen.sum() / (~special).sum() == pytest.approx(0.15, abs=0.02)
    assert (masked.inputs[chosen] == facts["mask_id"]).mean() == pytest.approx(0.8, abs=0.02)


def test_answers_are_where_the_question_is_quoted(small_dataset, facts):
    data = read_dataset(small_dataset, {**ROW, "task": "qa"}).train
    starts, ends = data.targets["start_positions"], data.targets["end_positions"]
    for ids, start, end in zip(data.inputs[:500].tolist(), starts, ends, strict=False):
        question = ids[1 : ids.index(facts["sep_id"])]
        assert ids[start : end + 1] == question and start > len(question)
    assert len(set(starts.tolist())) > 5


def test_replicas_share_out_one_global_order(small_dataset):
    data = read_dataset(small_dataset, ROW)
    alone = Batches(data, {**ROW, "grad_accum": 4}, 0, 1, CPU)
    shared = [Batches(data, {**ROW, "grad_accum": 2}, replica, 2, CPU) for replica in (0, 1)]
    assert alone.global_batch == shared[0].global_batch == 12
    for step in (0, 1, 7):
        wanted = np.concatenate([alone.indices(step, micro) for micro in range(4)])
        found = [batches.indices(step, micro) for micro in range(2) for batches in shared]
        assert np.concatenate(found).tolist() == wanted.tolist()


def test_an_epoch_takes_every_sample_once_in_a_new_order(small_dataset):
    data = read_dataset(small_dataset, ROW)
    batches = Batches(data, ROW, 0, 1, CPU)
    size = len(data.train)
    order = np.concatenate([batches.indices(step, 0) for step in range(-(-2 * size // 3))])
    first, second = order[:size], order[size : 2 * size]
    assert sorted(first) == sorted(second) == list(range(size))
    assert first.tolist() != second.tolist()
    other = Batches(data, {**ROW, "seed": 1}, 0, 1, CPU)
    assert other.indices(0, 0).tolist() != batches.indices(0, 0).tolist()


def test_evaluation_counts_every_held_out_sample_once(small_dataset):
    data = read_dataset(small_dataset, ROW)
    replicas = [Batches(data, {**ROW, "micro_batch": 50}, replica, 2, CPU) for replica in (0, 1)]
    batches = replicas[0].evaluation_batches(10**6)
    counted = sum(int(r.evaluate(number)[0].sum()) for number in range(batches) for r in replicas)
    assert counted == len(data.evaluation)
    assert replicas[0].evaluation_batches(2) == 2


def test_tensors_are_what_the_model_takes(small_dataset, facts):
    _, inputs = Batches(read_dataset(small_dataset, ROW), ROW, 0, 1, CPU).train(0, 0)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "input_ids": (3, 24),
        "attention_mask": (3, 24),
        "labels": (3,),
    }
    assert (inputs["attention_mask"] == (inputs["input_ids"] != facts["pad_id"])).all()
    assert json.dumps(facts)  # plain values


def test_checkpoint_brings_its_own_tokenizer(small_dataset, tmp_path, monkeypatch):
    from transformers import BertTokenizerFast

    monkeypatch.setattr(corpus, "_read", functools.cache(corpus._read))
    tokenizer = Tokenizer.from_file(str(small_dataset.with_name("tokenizer.json")))
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "checkpoint")
    out = tmp_path / "dataset.parquet"
    prepare("docstrings", 512, 0, out, tmp_path / "tokenizer.json", str(tmp_path / "checkpoint"))
    mine, own = (pq.read_table(path, columns=["input_ids"]) for path in (out, small_dataset))
    assert mine.equals(own)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no tokenizer in checkpoint"):
        prepare("docstrings", 512, 0, out, tmp_path / "tokenizer.json", str(tmp_path / "empty"))


def test_glue_pairs_become_one_sequence_with_two_separators(tmp_path, monkeypatch):
    import datasets

    def records(count: int) -> datasets.Dataset:
        columns = {
            "question": [f"what is number {index}" for index in range(count)],
            "sentence": [f"the number is {index} and no other" for index in range(count)],
            "label": [index % 2 for index in range(count)],
        }
        made = datasets.Dataset.from_dict(columns)
        return made.cast_column("label", datasets.ClassLabel(names=["entailment", "not_entailment"]))

    asked = []

    def load(*arguments):
        asked.append(arguments)
        return datasets.DatasetDict({"train": records(40), "validation": records(10)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    out = tmp_path / "dataset.parquet"
    prepare("glue/qnli", 300, 0, out, tmp_path / "tokenizer.json")
    assert asked == [("nyu-mll/glue", "qnli")]
    facts, table = read_facts(out, {**ROW, "vocab_size": 300}), pq.read_table(out).to_pydict()
    assert facts["labels"] == ["entailment", "not_entailment"]
    assert table["split"].count("train") == 40 and table["split"].count("eval") == 10
    assert table["label"][:4] == [0, 1, 0, 1]
    assert all(ids.count(facts["sep_id"]) == 2 for ids in table["input_ids"])


def test_the_glue_tasks_that_a_row_may_name_are_those_that_can_be_read():
    assert sorted(corpus.GLUE_COLUMNS) == sorted(strategy.GLUE_TASKS)


DECODER = {**ROW, "model_type": "llama", "task": "clm", "dataset": "source"}
IMAGE = {**ROW, "model_type": "vit", "dataset": "images", "image_size": 32, "patch_size": 8, "seq_len": 17}


def test_source_texts_are_written_whole_and_are_the_same_twice(source_dataset, tmp_path):
    prepare("source", 512, 0, tmp_path / "again.parquet", tmp_path / "again.json")
    tokenizer = Tokenizer.from_file(str(source_dataset.with_name("tokenizer.json")))
    assert (tmp_path / "again.parquet").read_bytes() == source_dataset.read_bytes()
    assert (tmp_path / "again.json").read_bytes() == source_dataset.with_name("tokenizer.json").read_bytes()
    facts = read_facts(source_dataset, DECODER)
    assert (facts["vocab_size"], facts["pad_id"], facts["num_labels"]) == (512, None, None)
    ids = pq.read_table(source_dataset)["input_ids"][0].as_py()
    assert ids[-1] == facts["end_id"] and facts["end_id"] not in ids[:-1]
    text = tokenizer.decode(ids[:-1])
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for family in corpus._MODULE_FAMILIES for path in corpus._modules(root, family)]
    assert text in {path.read_text(errors="replace") for path in paths}


def test_a_byte_vocabulary_writes_any_text_and_is_smaller_than_the_models():
    texts = ["def f(x):\n\treturn x"] * 3
    tokenizer = vocabulary.train_bytes(texts, 128256)
    assert tokenizer.get_vocab_size() <= vocabulary.BPE_SIZE
    for text in (*texts, "Ünï ☃ \x00 🙂"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    with pytest.raises(UserError, match="give at least 257"):
        vocabulary.train_bytes(texts, 256)


def test_packed_sequences_are_full_and_carry_no_mask(source_dataset):
    data = read_dataset(source_dataset, DECODER)
    stored = pq.read_table(source_dataset).to_pydict()
    texts = [ids for ids, split in zip(stored["input_ids"], stored["split"], strict=True) if split == "train"]
    whole = np.concatenate([np.array(ids, np.int32) for ids in texts])
    assert len(data.train) == len(whole) // 24
    assert (data.train.inputs.ravel() == whole[: data.train.inputs.size]).all()
    _, inputs = Batches(data, DECODER, 0, 1, CPU).train(0, 0)
    assert set(inputs) == {"input_ids", "labels"} and torch.equal(inputs["input_ids"], inputs["labels"])


def test_images_are_bytes_of_modules_with_their_labels(image_dataset):
    data = read_dataset(image_dataset, IMAGE)
    assert data.num_labels == 7 and len(data.train) > 2 * len(data.evaluation) > 400
    _, inputs = Batches(data, IMAGE, 0, 1, CPU).train(0, 0)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "labels": (3,),
        "pixel_values": (3, 3, 32, 32),
    }
    assert -1 <= inputs["pixel_values"].min() < inputs["pixel_values"].max() <= 1


def test_data_of_another_kind_is_refused(small_dataset, source_dataset, image_dataset):
    for path, row in (
        (source_dataset, ROW),
        (small_dataset, DECODER),
        (image_dataset, ROW),
        (source_dataset, IMAGE),
    ):
        with pytest.raises(UserError, match="correct the row's dataset"):
            read_facts(path, row)
    with pytest.raises(UserError, match="no train sample of seq_len"):
        read_dataset(source_dataset, {**DECODER, "seq_len": 10**7})
