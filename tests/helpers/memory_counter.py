"""Bytes that a training step reads and writes, counted operation by operation on torch's meta device.

Every kernel reads its inputs once and writes its outputs once. Views cost nothing. Dropout and fused attention are the
kernels that a GPU runs (`native_dropout`, efficient attention). The meta device would split them into parts.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import decoders
import torch
from jouleline.measure.train import modeling
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FREE = {"empty", "empty_like", "new_empty", "empty_strided", "detach", "_unsafe_view", "lift_fresh"}
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Bytes(TorchDispatchMode):
    """Sums the bytes of all kernels that run inside of it. `byte` has them by kernel."""

    def __init__(self, answer: bool = False):
        """`answer` says whether a question about the values of the inputs is answered by yes.

        Encoders ask whether there is no padding (there is). Decoders ask whether positions continue (they do, because
        nothing is packed).
        """
        super().__init__()
        self.answer = answer
        self.byte: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "_local_scalar_dense" and args[0].is_meta:
            return self.answer
        out = function(*args, **(kwargs or {}))
        if function.is_view or name in _FREE:
            return out
        moved = tensors_byte(args, kwargs) + tensors_byte(out)
        if name == "embedding":  # reads the rows that are looked up, not the table
            moved = tensors_byte(args[1]) + 2 * tensors_byte(out)
        self.byte[name] += moved
        return out


def tensors_byte(*values) -> int:
    """Bytes of all tensors in `values`. For an expanded tensor only the existing bytes count."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def _fused_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    bias = attn_mask
    if bias is None and is_causal:  # keys and values of few heads are not repeated
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, True, False, scale=scale)[0]
    if bias is not None:
        shape = (*query.shape[:3], key.shape[2])
        bias = (bias.to(query.dtype) if bias.dtype == torch.bool else bias).expand(shape)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]


def _dropout(x, p=0.5, training=True, inplace=False):
    return torch.native_dropout(x, p, True)[0] if training and p else x


@contextmanager
def _gpu_kernels() -> Iterator[None]:
    functional = torch.nn.functional
    with (
        mock.patch.object(functional, "scaled_dot_product_attention", _fused_attention),
        mock.patch.object(functional, "dropout", _dropout),
    ):
        yield


def count_step(row: dict) -> Counter[str]:
    """Bytes of one optimizer step of a row on one device: grad_accum micro-batches, clipping and the optimizer.

    There is a master copy in fp32 where the precision is lower.
    """
    recipe = modeling.Recipe()
    causal = row["task"] == "clm"
    model = _model(row)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    masters = weights if row["precision"] == "fp32" else [weight.detach().float() for weight in weights]
    optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[row["optimizer"]](
        masters, lr=1e-3, weight_decay=recipe.weight_decay, foreach=False
    )
    for master in masters:
        master.grad = torch.empty_like(master)
    optimizer.step()  # makes its state, which is not a part of a step
    for one in (*masters, *weights):
        one.grad = None
    with Bytes(answer=causal) as counted, _gpu_kernels():
        for _ in range(row["grad_accum"]):
            model(**_inputs(row)).loss.backward()
        if masters is not weights:
            for master, weight in zip(masters, weights, strict=True):
                master.grad = weight.grad.float()
        torch.nn.utils.clip_grad_norm_(masters, recipe.clip, foreach=False)
        optimizer.step()
        if masters is not weights:
            with torch.no_grad():
                for weight, master in zip(weights, masters, strict=True):
                    weight.copy_(master)
    return counted.byte


def count_passes(model: torch.nn.Module, given: dict) -> int:
    """Bytes that one forward and backward pass of a model moves."""
    with Bytes() as counted, _gpu_kernels():
        model(**given).loss.backward()
    return sum(counted.byte.values())


def count_saved(row: dict) -> int:
    """Bytes of all tensors that the forward pass of a row keeps for the backward pass (see `saved_byte`)."""
    return saved_byte(_model(row), _inputs(row), row["task"] == "clm")


def saved_byte(model: torch.nn.Module, given: dict, answer: bool = False) -> int:
    """Bytes of all tensors that a forward pass keeps, each storage once, without parameters and buffers."""
    known = {id_of(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id_of(tensor) not in known:
            kept[id_of(tensor)] = tensor  # alive, so that no other storage gets its number
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with _gpu_kernels(), Bytes(answer), hooks:
        model(**given)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def id_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _model(row: dict) -> torch.nn.Module:
    with torch.device("meta"):
        causal = row["task"] == "clm"
        model = (
            decoders.build(row) if causal else modeling.build(row, row["num_labels"], 0, modeling.Recipe())
        )
    return model.to(_TYPES[row["precision"]]).train()


def _inputs(row: dict) -> dict[str, torch.Tensor]:
    def whole(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=torch.long, device="meta")

    shape = row["micro_batch"], row["seq_len"]
    if row["task"] == "clm":  # packed: no mask
        tokens = whole(*shape)
        return {"input_ids": tokens, "labels": tokens}
    inputs = {"input_ids": whole(*shape), "attention_mask": whole(*shape)}
    if row["task"] == "qa":
        return inputs | {"start_positions": whole(shape[0]), "end_positions": whole(shape[0])}
    return inputs | {"labels": whole(shape[0]) if row["task"] == "classification" else whole(*shape)}
