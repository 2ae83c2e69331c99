"""Bytes that one training step moves: through the device's memory, and between devices."""

from types import SimpleNamespace

import numpy as np

OPTIMIZER_BYTE = {"adamw": 28, "sgd": 12}  # fp32 read and write: weight, gradient and, for AdamW, two moments


def element_byte(c: SimpleNamespace) -> np.ndarray:
    """Bytes per element of activations, weights and gradients in the row's precision."""
    return c.precision.lookup({"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}.__getitem__)


def memory_byte(c: SimpleNamespace, p: SimpleNamespace) -> np.ndarray:
    """Memory traffic of one device in one step.

    a 3 b B S L (16 d + (8 d + 4 ff + k h S)/t)  activations; k is 0 with fused attention, 8 with eager
    + a (2 P + P_train) b + a 2 b P_train         weights and gradients that the device holds
    + 28 P_train                                  AdamW in fp32, divided by n where ZeRO shards it
    """
    b, t = element_byte(c), c.tensor_parallel
    scores = np.where(c.attention == "eager", 8, 0) * c.heads * c.seq_len
    width = 16 * c.hidden + (8 * c.hidden + 4 * c.intermediate + scores) / t
    activations = 3 * b * c.micro_batch * c.seq_len * c.layers * width
    weights = (2 * p.device + p.device_trainable) * b
    gradients = 2 * b * p.device_trainable
    optimizer = c.optimizer.lookup(OPTIMIZER_BYTE.__getitem__) * p.device_trainable
    return c.grad_accum * (activations + weights + gradients) + optimizer / np.where(
        c.zero_stage > 0, c.data_parallel, 1
    )


def data_parallel_traffic(c: SimpleNamespace, p: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """(bytes sent, collectives) of one device and step to average gradients and share weights: ring
    algorithms, r = (n-1)/n over the n data-parallel devices.

    ZeRO-0 and 1: 2 r b P_train; ZeRO-2: r b (P + P_train); ZeRO-3: a (2 r b P + r b P_train) in 3 a (L+1)
    calls.
    """
    b, n, a = element_byte(c), c.data_parallel, c.grad_accum
    r = (n - 1) / n
    stage = c.zero_stage
    sent = np.select(
        [stage <= 1, stage == 2],
        [2 * r * b * p.device_trainable, r * b * (p.device + p.device_trainable)],
        a * r * b * (2 * p.device + p.device_trainable),
    )
    calls = np.select([stage <= 1, stage == 2], [1.0, 2.0], 3 * a * (c.layers + 1))
    return sent, np.where(n > 1, calls, 0)


def tensor_parallel_traffic(c: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """(bytes sent, collectives) of one device and step for tensor parallelism: four all-reduces of B x S x d
    per layer and micro-batch, a 4 L 2 r_t b B S d in 4 a L calls."""
    t = c.tensor_parallel
    calls = np.where(t > 1, 4 * c.grad_accum * c.layers, 0)
    return calls * 2 * (t - 1) / t * element_byte(c) * c.micro_batch * c.seq_len * c.hidden, calls
