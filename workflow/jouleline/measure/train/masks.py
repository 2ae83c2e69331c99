"""Whether a batch has padding: said by the host, which filled it, where transformers would wait for the device to ask.

Every forward pass asks whether the mask leaves anything out, as a Python bool: the host waits until the device is idle,
and the device then waits for the host. The answer, and with it the attention kernel, stays the same.
(Private names of transformers 5, which is pinned.)
"""

from typing import Any

import torch
from transformers import masking_utils

_NAMES = ("_ignore_bidirectional_mask_sdpa", "_ignore_causal_mask_sdpa")
_ASK = {name: getattr(masking_utils, name) for name in _NAMES}
_padded = False


def tell(padded: bool) -> None:
    """Say of the batch that the model is called with next whether it has padding."""
    global _padded
    _padded = padded


def _answer(name: str) -> Any:
    def ignore(padding_mask: torch.Tensor | None, *arguments: Any, **options: Any) -> bool:
        if padding_mask is not None and _padded:
            return False
        return _ASK[name](None, *arguments, **options)

    return ignore


def answer_from_host() -> None:
    """Put the host's answer in the place of transformers' question, in this process."""
    for name in _NAMES:
        setattr(masking_utils, name, _answer(name))
