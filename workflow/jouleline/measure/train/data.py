"""Batches of a prepared data set, padded to seq_len or packed, in one global order for all data-parallel replicas.

The order of samples is a permutation per epoch that depends on the seed alone. Optimizer step s of a job with a global
batch of G takes samples s G ... (s+1) G - 1 of this order, whatever the strategy: first by micro-step, then by
replica. So tensor-parallel ranks of one replica see the same data. Strategies with the same global batch train on the
same samples in the same steps.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from jouleline.errors import UserError
from jouleline.measure.train.corpus import IMAGE_SIDE, read_facts

IGNORED = -100  # label that transformers' losses leave out
_QUESTION_TOKENS = 3
_MASKED_SHARE = 0.15


@dataclass(frozen=True)
class Samples:
    """One split. `inputs` are int32 [samples, seq_len], or uint8 [samples, side, side] for images. The targets of the
    task are by argument name."""

    inputs: np.ndarray
    targets: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Dataset:
    """A prepared data set as arrays, with the facts in its file."""

    facts: dict[str, Any]
    num_labels: int | None
    train: Samples
    evaluation: Samples


def read_dataset(path: Path, row: Mapping[str, Any]) -> Dataset:
    """Read what prepare_dataset wrote, in sequences of the row's seq_len for the row's task.

    Raises UserError as `read_facts` does, and where a split is empty.
    """
    facts = read_facts(path, row)
    # ParquetFile, because read_table spends half a second on importing its data set code.
    table = pq.ParquetFile(path).read(use_threads=False)
    splits = np.array(table["split"].to_pylist())
    made = {}
    for split in ("train", "eval"):
        made[split] = _read_split(table, np.flatnonzero(splits == split), row, facts)
        if not len(made[split]):
            raise UserError(
                f"{path} has no {split} sample of seq_len {row['seq_len']}; lower it, or prepare the dataset again"
            )
    return Dataset(facts, row["num_labels"] or facts["num_labels"], made["train"], made["eval"])


def _read_split(
    table: pa.Table, rows: np.ndarray, row: Mapping[str, Any], facts: Mapping[str, Any]
) -> Samples:
    if "image" in table.column_names:
        pixels = np.frombuffer(b"".join(table["image"].take(rows).to_pylist()), np.uint8)
        labels = _int32(table["label"].combine_chunks())[rows].astype(np.int64)
        return Samples(pixels.reshape(-1, IMAGE_SIDE, IMAGE_SIDE), {"labels": labels})
    column = table["input_ids"].combine_chunks()
    tokens, offsets = _int32(column.values), _int32(column.offsets)
    bounds = offsets[rows], offsets[rows + 1]
    if row["task"] == "clm":
        return _packed(tokens, *bounds, row["seq_len"])
    labels = _int32(table["label"].combine_chunks())[rows]
    return _for_task(_pad(tokens, *bounds, row["seq_len"], facts), labels, row, facts)


def _int32(array: pa.Array) -> np.ndarray:
    """The values of an int32 array without nulls. Arrow's own to_numpy imports pandas."""
    return np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array)]


def _packed(tokens: np.ndarray, start: np.ndarray, end: np.ndarray, seq_len: int) -> Samples:
    """Causal language modelling: concatenate the texts, cut them into sequences, drop the rest. Labels are the inputs:
    transformers compares each token with the one after it."""
    whole = np.concatenate([tokens[a:b] for a, b in zip(start, end, strict=True)] or [tokens[:0]])
    inputs = whole[: len(whole) // seq_len * seq_len].reshape(-1, seq_len)
    return Samples(inputs, {"labels": inputs})


def _pad(tokens: np.ndarray, start: np.ndarray, end: np.ndarray, seq_len: int, facts: Mapping[str, int]):
    """Rows of ids cut to seq_len (the closing [SEP] stays), then filled with the padding id."""
    length = np.minimum(end - start, seq_len)
    position = np.arange(seq_len)
    used = position < length[:, None]
    padded = np.full((len(start), seq_len), facts["pad_id"], np.int32)
    padded[used] = tokens[(start[:, None] + position)[used]]
    padded[np.arange(len(start)), length - 1] = facts["sep_id"]
    return padded


def _for_task(
    inputs: np.ndarray, labels: np.ndarray, row: Mapping[str, Any], facts: Mapping[str, int]
) -> Samples:
    if row["task"] == "classification":
        return Samples(inputs, {"labels": labels.astype(np.int64)})
    random = np.random.default_rng(row["seed"])
    return (_masked if row["task"] == "mlm" else _questions)(inputs, facts, random)


def _masked(inputs: np.ndarray, facts: Mapping[str, int], random: np.random.Generator) -> Samples:
    """Masked-language modelling (Devlin et al. 2019, section 3.1).

    The model must find 15 % of the tokens. Of these 80 % are masked, 10 % replaced and 10 % left. The masks are drawn
    once, so every epoch has the same.
    """
    special = np.isin(inputs, [facts["pad_id"], facts["cls_id"], facts["sep_id"]])
    score = np.where(special, 2.0, random.random(inputs.shape))
    chosen = score < _MASKED_SHARE
    lowest = score.argmin(axis=1)  # at least one token per sample, so that no loss is a mean over nothing
    chosen[np.arange(len(inputs)), lowest] |= ~special[np.arange(len(inputs)), lowest]
    labels = np.where(chosen, inputs, IGNORED).astype(np.int64)
    how = random.random(inputs.shape)
    replaced = np.where(how < 0.9, random.integers(0, facts["vocab_size"], inputs.shape), inputs)
    hidden = np.where(how < 0.8, facts["mask_id"], replaced)
    return Samples(np.where(chosen, hidden, inputs).astype(np.int32), {"labels": labels})


def _questions(inputs: np.ndarray, facts: Mapping[str, int], random: np.random.Generator) -> Samples:
    """Extractive question answering made from any text.

    The question quotes three tokens of the passage after it. The answer is the place of these tokens. Shape and head
    are those of SQuAD: [CLS] question [SEP] passage [SEP].
    """
    made = np.full_like(inputs, facts["pad_id"])
    starts = np.zeros(len(inputs), np.int64)
    ends = np.zeros(len(inputs), np.int64)
    for index, ids in enumerate(inputs):
        body = ids[(ids != facts["pad_id"]) & (ids != facts["cls_id"]) & (ids != facts["sep_id"])]
        passage = body[: len(ids) - _QUESTION_TOKENS - 3]
        length = min(_QUESTION_TOKENS, len(passage))
        at = int(random.integers(0, len(passage) - length + 1))
        parts = [facts["cls_id"], *passage[at : at + length], facts["sep_id"], *passage, facts["sep_id"]]
        made[index, : len(parts)] = parts
        starts[index] = 2 + length + at
        ends[index] = starts[index] + max(length - 1, 0)
    return Samples(made, {"start_positions": starts, "end_positions": ends})


class Batches:
    """Micro-batches of one replica on its device: int64, non-blocking where the device is a GPU."""

    def __init__(
        self, data: Dataset, row: Mapping[str, Any], replica: int, replicas: int, device: torch.device
    ):
        self.data, self.device = data, device
        self.micro_batch, self.grad_accum, self.seed = row["micro_batch"], row["grad_accum"], row["seed"]
        self.replica, self.replicas, self.image_size = replica, replicas, row["image_size"]
        self._orders: dict[int, np.ndarray] = {}

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.replicas * self.grad_accum

    def indices(self, step: int, micro: int, replica: int | None = None) -> np.ndarray:
        """The training samples of a replica (this one by default) in a micro-step: int64 [micro_batch]."""
        replica = self.replica if replica is None else replica
        first = ((step * self.grad_accum + micro) * self.replicas + replica) * self.micro_batch
        positions = np.arange(first, first + self.micro_batch)
        epochs, within = np.divmod(positions, len(self.data.train))
        return np.concatenate(
            [self._order(int(epoch))[within[epochs == epoch]] for epoch in np.unique(epochs)]
        )

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            if len(self._orders) > 4:
                self._orders.clear()
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(len(self.data.train))
        return self._orders[epoch]

    def train(self, step: int, micro: int) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """The indices of the samples and the model's arguments for one micro-step."""
        chosen = self.indices(step, micro)
        return chosen, self._tensors(self.data.train, chosen)

    def evaluate(self, number: int) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """Evaluation batch `number` of this replica: a mask bool [micro_batch] of the samples that count, and the
        model's arguments. Every rank must run the same batches, so the last one is filled up."""
        first = (number * self.replicas + self.replica) * self.micro_batch
        positions = np.arange(first, first + self.micro_batch)
        samples = self.data.evaluation
        return positions < len(samples), self._tensors(samples, positions % len(samples))

    def evaluation_batches(self, wanted: int) -> int:
        """The number of evaluation batches, at most `wanted`."""
        return min(wanted, -(-len(self.data.evaluation) // (self.micro_batch * self.replicas)))

    def _tensors(self, samples: Samples, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        arrays = {name: values[chosen].astype(np.int64) for name, values in samples.targets.items()}
        if samples.inputs.dtype == np.uint8:
            arrays["pixel_values"] = _scaled(samples.inputs[chosen], self.image_size)
        else:
            arrays["input_ids"] = samples.inputs[chosen].astype(np.int64)
        # Packed sequences have no padding. Without a mask, causal attention can run fused.
        if self.data.facts["pad_id"] is not None:
            arrays["attention_mask"] = (arrays["input_ids"] != self.data.facts["pad_id"]).astype(np.int64)
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if self.device.type != "cuda":
            return tensors
        return {
            name: value.pin_memory().to(self.device, non_blocking=True) for name, value in tensors.items()
        }


def _scaled(pixels: np.ndarray, side: int) -> np.ndarray:
    """Grey images uint8 [images, s, s] as float32 [images, 3, side, side] from -1 to 1. Takes the nearest pixel."""
    nearest = np.arange(side) * pixels.shape[-1] // side
    grey = pixels[:, nearest[:, None], nearest].astype(np.float32) / 127.5 - 1
    return np.repeat(grey[:, None], 3, axis=1)


def digest(parts: list[bytes]) -> str:
    """Hex digest (16 digits) of some arrays' bytes, in order."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()[:16]
