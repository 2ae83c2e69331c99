"""What transformers and torch do for attention besides computing it: a question in each pass, a choice of kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.attention import SDPBackend
from transformers import masking_utils

from jouleline.measure.train.data import Dataset

# Arguments of scaled_dot_product_attention after the queries.
_ARGUMENTS = ("key", "value", "attn_mask", "dropout_p", "is_causal")


def answer_from_data(data: Dataset) -> None:
    """Keep every forward pass from asking the device whether its batch is padded, and waiting for the answer.

    The data knows the answer. Where no sample is padded, the mask is left out, as transformers does; else it is always
    there. So every step of a run uses the same kernel. (A private name of transformers 5.23, which is pinned.)
    """
    pad_id = data.facts["pad_id"]
    padded = any(bool((split.inputs == pad_id).any()) for split in (data.train, data.evaluation))

    def ignore(mask: Any, _kv_length: int = 0, local_attention_size: int | None = None) -> bool:
        return (mask is None or not padded) and local_attention_size is None

    masking_utils._ignore_bidirectional_mask_sdpa = ignore
    if pad_id is None:
        # Decoders ask whether positions start again within a sequence. Here they never do: texts see each other.
        masking_utils.find_packed_sequence_indices = lambda _positions: None


@dataclass
class Seen:
    """What fused attention did.

    `kernels` are names of SDPBackend in lower case. It also counts the calls, and the calls that computed only the
    pairs that a causal mask leaves. Attention in parts (`eager`) calls no such kernel.
    """

    kernels: set[str] = field(default_factory=set)
    calls: int = 0
    halves: int = 0

    @property
    def causal_half_share(self) -> float:
        """The share of calls that skipped the part above the diagonal. 0: all calls computed the full square."""
        return self.halves / self.calls if self.calls else 0.0


@contextmanager
def attention_seen() -> Iterator[Seen]:
    """Record what torch chooses for fused attention inside this context.

    With no mask except "causal", every fused kernel skips blocks above the diagonal. The `math` kernel does not. On a
    CPU only the `math` kernel supports dropout.
    """
    seen = Seen()
    attention = torch.nn.functional.scaled_dot_product_attention

    def look(query: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        kernel = SDPBackend(torch._fused_sdp_choice(query, *arguments, **options)).name.lower()
        causal = dict(zip(_ARGUMENTS, arguments)).get("is_causal", options.get("is_causal", False))
        seen.kernels.add(kernel)
        seen.calls += 1
        seen.halves += bool(causal) and kernel != "math"
        return attention(query, *arguments, **options)

    torch.nn.functional.scaled_dot_product_attention = look
    try:
        yield seen
    finally:
        torch.nn.functional.scaled_dot_product_attention = attention
