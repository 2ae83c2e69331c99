"""FLOP counted by running a model on torch's meta device: shapes only, no memory, no arithmetic.

For model families without a closed formula, and the reference that the formulas are tested against.
"""

from typing import Any

from jouleline.errors import UserError

TASKS = {
    "classification": "AutoModelForSequenceClassification",
    "qa": "AutoModelForQuestionAnswering",
    "mlm": "AutoModelForMaskedLM",
}


def flops_from_counter(config: Any, task: str, seq_len: int, micro_batch: int = 1) -> dict[str, float]:
    """Count a transformers configuration of any architecture with the head of `task`, full fine-tuning.

    Returns forward_flop and training_flop (forward and backward) of one micro-batch, parameters and
    trainable_parameters. Raises UserError for a task without a head, or a model that the meta device cannot
    run.
    """
    import torch
    import transformers

    if task not in TASKS:
        raise UserError(f"task is {task!r}; use one of {', '.join(TASKS)}")
    try:
        config._attn_implementation = "eager"  # fused kernels are not counted on every device
        with torch.device("meta"):
            model = getattr(transformers, TASKS[task]).from_config(config)
        return count_step(model, task, seq_len, micro_batch)
    except (ValueError, NotImplementedError, RuntimeError, TypeError, AttributeError) as error:
        kind = getattr(config, "model_type", type(config).__name__)
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{kind} with a {task} head cannot be counted ({reason}); choose another head"
        ) from error


def count_step(model: Any, task: str, seq_len: int, micro_batch: int) -> dict[str, float]:
    """FLOP and parameters of one training step of `model`, which lies on the meta device, as
    flops_from_counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def whole(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=torch.long, device="meta")

    inputs = {"input_ids": whole(micro_batch, seq_len)}
    if task == "qa":
        inputs |= {"start_positions": whole(micro_batch), "end_positions": whole(micro_batch)}
    else:
        inputs["labels"] = whole(micro_batch) if task == "classification" else inputs["input_ids"]
    model.train()
    with FlopCounterMode(display=False) as forward:
        loss = model(**inputs).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    parameters = list(model.parameters())
    return {
        "forward_flop": float(forward.get_total_flops()),
        "training_flop": float(forward.get_total_flops() + backward.get_total_flops()),
        "parameters": float(sum(p.numel() for p in parameters)),
        "trainable_parameters": float(sum(p.numel() for p in parameters if p.requires_grad)),
    }
