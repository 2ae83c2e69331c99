"""Process group, layout and DeepSpeed engine of a row's strategy.

ZeRO stage 3 is fully sharded data parallelism. Tensor parallelism is DeepSpeed's AutoTP. The ranks of one
tensor-parallel group are neighbours, so rank // tensor_parallel is the data-parallel replica.
"""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.fp16 import unfused_optimizer

from jouleline.campaign.strategy import device_count
from jouleline.measure.node.process_group import enter
from jouleline.measure.train import tensor_parallel
from jouleline.measure.train.modeling import Recipe


@dataclass(frozen=True)
class Layout:
    """The place of a rank: global rank, number of ranks, tensor-parallel degree."""

    rank: int
    world_size: int
    tensor_parallel: int

    @property
    def replica(self) -> int:
        return self.rank // self.tensor_parallel

    @property
    def replicas(self) -> int:
        return self.world_size // self.tensor_parallel


def join(
    rank: int, world_size: int, local_rank: int, store: dist.Store, device: torch.device, timeout_s: float
):
    """Enter the process group over `store`. DeepSpeed uses the same group."""
    _quiet()
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(local_rank))
    # DeepSpeed compiles operators at first use where it finds a compiler; on a CPU even a shared-memory all-reduce.
    # This takes tens of seconds in every job, and the numbers would depend on the compiler. None is needed here, so
    # none is offered (a private name of deepspeed 0.19, which is pinned).
    deepspeed.ops.__compatible_ops__ = _NoOperators()
    _import_muon()
    backend = enter(store, rank, world_size, device, timeout_s)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)
    if device.type == "cuda":
        # DeepSpeed asks NVML by the numbers in CUDA_VISIBLE_DEVICES, and fails where these are UUIDs. CUDA itself knows
        # how much memory is free.
        deepspeed.accelerator.get_accelerator().available_memory = lambda _=None: torch.cuda.mem_get_info()[0]


class _NoOperators(dict):
    """Says that no operator can be compiled here."""

    def __missing__(self, name: str) -> bool:
        return False


def _import_muon() -> None:
    """Import the module of the Muon optimizer, which ZeRO asks about, without torch's compiler. The module would hand
    its kernels to the compiler. This takes two seconds for nothing, because they are never called."""
    compile_function = torch.compile
    torch.compile = lambda function=None, **_: function or (lambda inner: inner)
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        torch.compile = compile_function


def _quiet() -> None:
    """Keep DeepSpeed from printing its whole configuration on every rank. Warnings and errors stay."""
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.WARNING)


def settings(row: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """DeepSpeed's configuration of a row."""
    optimizer: dict[str, Any] = {"lr": row["learning_rate"], "weight_decay": recipe.weight_decay}
    if row["optimizer"] == "adamw":
        optimizer["torch_adam"] = True  # torch's own, because DeepSpeed's would be compiled at first use
    config: dict[str, Any] = {
        # Only the micro-batch is given: DeepSpeed's train_batch_size counts tensor-parallel ranks as replicas.
        "train_micro_batch_size_per_gpu": row["micro_batch"],
        "gradient_accumulation_steps": row["grad_accum"],
        "gradient_clipping": recipe.clip,
        "optimizer": {"type": {"adamw": "AdamW", "sgd": "SGD"}[row["optimizer"]], "params": optimizer},
        "zero_optimization": {"stage": row["zero_stage"]},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 40,
        # Else it would wait for the device before and after every micro-step, and no step could be prepared meanwhile.
        "timers": {"throughput": {"enabled": False}},
    }
    if row["precision"] == "bf16":
        # The range of bf16 is that of fp32. So looking for overflow in every gradient, as fp16 must, would find
        # nothing.
        config["bf16"] = {"enabled": True, "check_grad_overflow": False}
    if row["precision"] == "fp16":
        config["fp16"] = {"enabled": True}
    if row["tensor_parallel"] > 1:
        config["tensor_parallel"] = tensor_parallel.plan(row)
    return config


def start_engine(model: torch.nn.Module, row: Mapping[str, Any], recipe: Recipe) -> Any:
    """The DeepSpeed engine of `model`. Raises RuntimeError where its strategy is not the one asked for."""
    whole = sum(parameter.numel() for parameter in model.parameters())
    with tensor_parallel.prepared(model, row) as trained:
        engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=settings(row, recipe))
    _check_strategy(engine, row, whole)
    if row["tensor_parallel"] > 1:
        # The hook sends rank 0's first batch as pickled CUDA tensors, and every rank would open a context on its GPU.
        # `Trainer.check_data` proves that the ranks of a group train on the same samples.
        engine.first_dataloader_check.remove()
    if row["zero_stage"] == 0:
        _mend_plain_engine(engine, trained, recipe)
    elif row["zero_stage"] < 3:
        _mend_sharded_engine(engine.optimizer)
    elif engine.device.type == "cuda":
        _mend_fully_sharded_engine(engine.optimizer)
    return engine


def _mend_sharded_engine(optimizer: Any) -> None:
    """Let ZeRO 1 and 2 wait for the device once a step, instead of three times."""
    # As without ZeRO, the norm that is computed next shows an overflow, and the same code skips the step.
    optimizer.check_overflow = lambda *_, **__: None
    on_device = optimizer.scaled_global_norm
    # It is asked twice whether the norm is finite, and the update begins in between. On the host this costs nothing.
    optimizer.scaled_global_norm = lambda *arguments, **options: on_device(*arguments, **options).cpu()


def _mend_fully_sharded_engine(optimizer: Any) -> None:
    """Let ZeRO 3 wait for the device once a step, instead of in every micro-batch and at least twice in a step.

    The device's own streams wait instead of the host, in the same order.
    """
    # As without ZeRO, the norm that is computed next shows an overflow, and the same code skips the step.
    optimizer.check_overflow = lambda *_, **__: None
    # After each backward pass, wait for the reduced gradients.
    reduced = optimizer.reduce_and_partition_stream
    reduced.synchronize = lambda: torch.cuda.current_stream().wait_stream(reduced)
    # After the step, wait for the gathered small weights. The collective itself waits for NCCL's stream.
    accelerator, post_step = deepspeed.accelerator.get_accelerator(), optimizer._post_step

    def gather(*arguments: Any) -> None:
        wait, accelerator.synchronize = accelerator.synchronize, lambda *_: None
        try:
            post_step(*arguments)
        finally:
            accelerator.synchronize = wait

    optimizer._post_step = gather


def _mend_plain_engine(engine: Any, trained: list[torch.nn.Parameter], recipe: Recipe) -> None:
    """Leave out what DeepSpeed adds to a plain loop where there is no ZeRO."""
    if engine.dp_world_size == 1:
        # Else DeepSpeed would copy all gradients into buckets and reduce them over a group of one. This takes up to a
        # tenth of a small step, and no plain loop does it.
        engine.enable_backward_allreduce = False
    if dist.get_world_size() == 1:
        # Else it would also reduce the norm of the gradients over a group of one, tensor by tensor.
        engine.clip_fp32_gradients = lambda: torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
        unfused_optimizer.get_weight_norm = _norm
    optimizer = engine.optimizer
    if isinstance(optimizer, unfused_optimizer.FP16_UnfusedOptimizer):
        # Else it would look for overflow in every gradient, and wait for the device at each. The norm that is computed
        # next shows the same, and the same code skips a step that overflowed.
        optimizer.overflow_checker.check = lambda *_, **__: False
        # It made a step with zero gradients. Else Adam would count from two, on weights that have decayed once.
        optimizer.optimizer.state.clear()
        for masters, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
            for master, weight in zip(masters, weights, strict=True):
                master.data.copy_(weight.data)


def _norm(gradients: list[torch.Tensor], mpu: None = None) -> float:
    """The norm of all gradients in fp32. -1 where it is not finite, as in DeepSpeed."""
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(norms)).item()
    return norm if math.isfinite(norm) else -1


def _check_strategy(engine: Any, row: Mapping[str, Any], whole: int) -> None:
    """Compare what DeepSpeed made of the configuration with what the row asked for."""
    shards = row["tensor_parallel"]
    held = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in engine.module.parameters())
    facts = {
        "world size": (dist.get_world_size(), device_count(row)),
        "ZeRO stage": (engine.zero_optimization_stage(), row["zero_stage"]),
        "data-parallel size": (engine.dp_world_size, device_count(row) // shards),
        "tensor-parallel size": (max(engine.autotp_size(), 1), shards),
        "sharded model": (held < whole, shards > 1),
        "micro-batch": (engine.train_micro_batch_size_per_gpu(), row["micro_batch"]),
        "gradient accumulation": (engine.gradient_accumulation_steps(), row["grad_accum"]),
    }
    for name, (found, wanted) in facts.items():
        if found != wanted:
            raise RuntimeError(f"DeepSpeed runs with {name} {found}, the row asks for {wanted}")
