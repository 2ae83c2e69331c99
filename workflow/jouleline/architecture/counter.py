"""FLOP counted by running a model on torch's meta device: shapes only, no memory, no arithmetic.

It serves model families that are not described, and it is the reference for testing the proxies.
"""

from typing import Any

from jouleline.errors import UserError

TASKS = {
    "classification": "AutoModelForSequenceClassification",
    "qa": "AutoModelForQuestionAnswering",
    "mlm": "AutoModelForMaskedLM",
    "clm": "AutoModelForCausalLM",
}


def flops_from_counter(config: Any, task: str, seq_len: int, micro_batch: int = 1) -> dict[str, float]:
    """Count a transformers configuration of any architecture with the head of `task`, full fine-tuning.

    Returns forward_flop and training_flop (forward and backward) of one micro-batch, parameters and
    trainable_parameters. Raises UserError for a task without a head, or a model that cannot run on the meta device.
    """
    import torch
    import transformers

    if task not in TASKS:
        raise UserError(f"task is {task!r}; use one of {', '.join(TASKS)}")
    try:
        config._attn_implementation = "eager"  # not every device counts fused kernels
        # The class of an image has its own head class.
        image = task == "classification" and hasattr(config, "patch_size")
        head = "AutoModelForImageClassification" if image else TASKS[task]
        with torch.device("meta"):
            model = getattr(transformers, head).from_config(config)
        return count_step(model, task, seq_len, micro_batch)
    except (ValueError, NotImplementedError, RuntimeError, TypeError, AttributeError) as error:
        kind = getattr(config, "model_type", type(config).__name__)
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{kind} with a {task} head cannot be counted ({reason}); choose another head"
        ) from error


def count_step(model: Any, task: str, seq_len: int, micro_batch: int) -> dict[str, float]:
    """FLOP and parameters of one training step of `model`, which is on the meta device. As flops_from_counter."""
    from torch.utils.flop_counter import FlopCounterMode

    model.train()
    given = inputs(model, task, seq_len, micro_batch)
    with FlopCounterMode(display=False) as forward:
        loss = model(**given).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    parameters = list(model.parameters())
    return {
        "forward_flop": float(forward.get_total_flops()),
        "training_flop": float(forward.get_total_flops() + backward.get_total_flops()),
        "parameters": float(sum(p.numel() for p in parameters)),
        "trainable_parameters": float(sum(p.numel() for p in parameters if p.requires_grad)),
    }


def inputs(model: Any, task: str, seq_len: int, micro_batch: int) -> dict[str, Any]:
    """The input of `model` for one step, on the meta device: tokens and labels of the task, or an image and class."""
    import torch

    def whole(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=torch.long, device="meta")

    if model.main_input_name == "pixel_values":
        size, channels = model.config.image_size, model.config.num_channels
        image = torch.zeros(micro_batch, channels, size, size, dtype=model.dtype, device="meta")
        return {"pixel_values": image, "labels": whole(micro_batch)}
    tokens = {"input_ids": whole(micro_batch, seq_len)}
    if task == "qa":
        return tokens | {"start_positions": whole(micro_batch), "end_positions": whole(micro_batch)}
    if task == "clm":
        # Without a mask, transformers looks at the positions to find packed documents. On the meta device they have no
        # values.
        tokens |= {"attention_mask": torch.ones(micro_batch, seq_len, dtype=torch.long, device="meta")}
    return tokens | {"labels": whole(micro_batch) if task == "classification" else tokens["input_ids"]}
