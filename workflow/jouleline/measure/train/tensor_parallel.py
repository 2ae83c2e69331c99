"""What a family needs in addition to DeepSpeed's AutoTP to be split over devices, and what a split head changes.

AutoTP splits most families by transformers' own plan. Three families need a plan from here: AutoTP refuses GPT-2 by
name, Phi-3's plan has styles that AutoTP lacks, and ViT has no plan. Seen with deepspeed 0.19.8 and transformers 5.23.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.module_inject.layers import VocabParallelLinear
from deepspeed.sequence.cross_entropy import VocabParallelCausalLMLoss, _VocabParallelCrossEntropy
from transformers.pytorch_utils import Conv1D


def plan(row: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeed's `tensor_parallel` configuration of a row."""
    made: dict[str, Any] = {"autotp_size": row["tensor_parallel"]}
    if row["model_type"] in _PLANS:
        specs = [
            {"patterns": [rf".*\.{ends}\.weight$"], "partition_type": how, **shape}
            for ends, how, shape in _PLANS[row["model_type"]](row)
        ]
        made["partition_config"] = {"layer_specs": specs, "use_default_specs": False}
    return made


def _gpt2(row: Mapping[str, Any]) -> list[tuple[str, str, dict]]:
    fused = {"shape": [3, -1], "partition_dim": 0}
    return [("attn.c_attn", "column", fused), (r"mlp\.c_fc", "column", {}), ("c_proj", "row", {})]


def _phi3(row: Mapping[str, Any]) -> list[tuple[str, str, dict]]:
    width = row["hidden"] // row["heads"]
    key = width * (row["kv_heads"] or row["heads"])
    qkv = {"shape": [[row["hidden"], key, key], -1], "partition_dim": 0}
    gate_up = {"shape": [2, -1], "partition_dim": 0}
    rows = [(name, "row", {}) for name in ("o_proj", "down_proj")]
    return [("qkv_proj", "column", qkv), ("gate_up_proj", "column", gate_up), *rows]


def _vit(row: Mapping[str, Any]) -> list[tuple[str, str, dict]]:
    return [("(?:[qkv]_proj|fc1)", "column", {}), ("(?:o_proj|fc2)", "row", {})]


_PLANS = {"gpt2": _gpt2, "phi3": _phi3, "vit": _vit}


@contextmanager
def prepared(model: torch.nn.Module, row: Mapping[str, Any]) -> Iterator[list[torch.nn.Parameter]]:
    """Change `model` into a form that AutoTP can split while the engine is made. Afterwards correct what AutoTP does
    not know. Yields the parameters to train."""
    shards = row["tensor_parallel"]
    if shards > 1:
        _use_linear(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if shards == 1:
        yield trained
        return
    # AutoTP adds a hook to these, which a frozen parameter does not accept.
    frozen = [
        parameter
        for name, parameter in model.named_parameters()
        if name.split(".")[-2] in ("q_norm", "k_norm") and not parameter.requires_grad
    ]
    for parameter in frozen:
        parameter.requires_grad_(True)
    yield trained
    for parameter in frozen:
        parameter.requires_grad_(False)
    for module in model.modules():
        if row["model_type"] == "gpt2" and hasattr(module, "split_size"):
            module.split_size //= shards
        if row["model_type"] == "phi3" and hasattr(module, "qkv_proj"):
            # AutoTP separates queries from keys by the number of heads in its configuration.
            module.config = copy.copy(module.config)
            module.config.num_attention_heads //= shards
    if isinstance(getattr(model, "loss_function", None), VocabParallelCausalLMLoss):
        model.loss_function = _without_asking(model.loss_function)


def _without_asking(split: VocabParallelCausalLMLoss) -> Callable[..., torch.Tensor]:
    """DeepSpeed's loss of a head that is split by its vocabulary, without its question to the device.

    In every micro-batch DeepSpeed asks the device whether a label lies outside the vocabulary, and waits. Here labels
    are the data set's own tokens, and each counts.
    """

    def loss(logits: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        place = split.tp_group, split.vocab_start_index, split.vocab_end_index, split.ignore_index
        return _VocabParallelCrossEntropy.apply(
            logits[:, :-1].contiguous(), labels[:, 1:].contiguous(), *place
        ).mean()

    return loss


def _use_linear(model: torch.nn.Module) -> None:
    """Replace GPT-2's Conv1D by a Linear with the same numbers and inputs last."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(child.nx, child.nf, device="meta")
                needed = child.weight.requires_grad
                linear.weight = torch.nn.Parameter(child.weight.detach().t().contiguous(), needed)
                linear.bias = child.bias
                setattr(parent, name, linear)


def predictions(model: torch.nn.Module, logits: torch.Tensor) -> torch.Tensor:
    """The token of the highest logit, int64 [batch, tokens]. Where the head is split by its vocabulary, each rank has
    the logits [batch, tokens, V / t] of its part, and the ranks agree on the best."""
    best, token = logits.max(-1)
    heads = [module for module in model.modules() if isinstance(module, VocabParallelLinear)]
    if not heads:
        return token
    highest = best.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, heads[0].mp_group)
    token = torch.where(best == highest, token + heads[0].vocab_start_index, heads[0].vocab_size)
    dist.all_reduce(token, dist.ReduceOp.MIN, heads[0].mp_group)
    return token
