"""What transformers and torch do about attention besides computing it: a question per pass, and a choice of kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend
from transformers import masking_utils

from jouleline.measure.train.data import Dataset


def answer_from_data(data: Dataset) -> None:
    """Let no forward pass ask the device whether its batch is padded, and wait for the answer: the data knows.

    Where no sample is padded the mask is left out, as transformers does, else it is always there: every step of a run
    takes the same kernel. (A private name of transformers 5.23, which is pinned.)
    """
    pad_id = data.facts["pad_id"]
    padded = any(bool((split.inputs == pad_id).any()) for split in (data.train, data.evaluation))

    def ignore(mask: Any, _kv_length: int = 0, local_attention_size: int | None = None) -> bool:
        return (mask is None or not padded) and local_attention_size is None

    masking_utils._ignore_bidirectional_mask_sdpa = ignore
    if pad_id is None:
        # Decoders ask whether positions begin anew within a sequence. Here they never do: texts see each other.
        masking_utils.find_packed_sequence_indices = lambda _positions: None


@contextmanager
def kernels_seen() -> Iterator[set[str]]:
    """The kernels that torch chooses for fused attention meanwhile, by the names of SDPBackend in lower case."""
    seen: set[str] = set()
    attention = torch.nn.functional.scaled_dot_product_attention

    def look(query: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        seen.add(SDPBackend(torch._fused_sdp_choice(query, *arguments, **options)).name.lower())
        return attention(query, *arguments, **options)

    torch.nn.functional.scaled_dot_product_attention = look
    try:
        yield seen
    finally:
        torch.nn.functional.scaled_dot_product_attention = attention
