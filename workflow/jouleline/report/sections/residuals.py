"""Residuals of the headline model against every axis of the grid that has more than one value."""

from jouleline.report import labels
from jouleline.report.blocks import Panels, Section, Text
from jouleline.report.figures.validation import residuals, value
from jouleline.report.inputs import Inputs
from jouleline.report.points import points
from jouleline.report.scores import ours, split_title

_AXES = {
    "layers": "layers L",
    "hidden": "hidden width d",
    "heads": "attention heads h",
    "intermediate": "feed-forward width ff",
    "seq_len": "sequence length S (tokens)",
    "micro_batch": "micro-batch B (sequences per device)",
    "grad_accum": "gradient accumulation",
    "device_count": "devices N",
    "strategy": "parallel strategy",
    "precision": "precision",
    "attention": "attention kernel",
    "frozen_layers": "frozen layers",
    "lora_rank": "LoRA rank",
    "gradient_checkpointing": "activation checkpointing",
    "device": "device",
}
_MOST_VALUES = 10  # a panel cannot label more columns


def build(inputs: Inputs, stamp: str) -> Section | None:
    """One panel per axis, for the first hold-out that has predictions of the headline model."""
    series = ours(inputs)
    for split in inputs.split_names:
        found = points(inputs, series, split, "energy")
        if found:
            break
    else:
        text = "There are no held-out predictions of the headline model, so there are no residuals to show."
        return Section("residuals", "Residuals", [Text(text, "warn")])
    errors = [point.error for point in found]
    margin = 0.08 * (max(errors) - min(errors)) + 0.01
    limits = min(*errors, 0) - margin, max(*errors, 0) + margin
    shown = [
        (axis, title)
        for axis, title in _AXES.items()
        if 1 < len({value(p, axis) for p in found}) <= _MOST_VALUES
    ]
    figures = [residuals(found, axis, title, limits, stamp) for axis, title in shown]
    strategies = labels.legend({labels.strategy(point.run) for point in found})
    note = (
        f"Energy, {labels.model(*series)}, {split_title(split)}. Bars are medians. A slope along an axis is physics "
        "that the model lacks; scatter without a slope is noise or an effect that no axis carries."
    )
    return Section(
        "residuals",
        "Residuals",
        [Panels("Relative error against the axes of the grid", figures, strategies, note)],
    )
