"""The manual names all gates, models and splits."""

from jouleline.model.fit.registry import MODELS
from jouleline.model.judge.gates import GATES
from jouleline.model.judge.splits import SPLITS
from paths import ROOT

TEXT = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")


def test_every_gate_model_and_split_is_in_the_manual():
    for gate, (split, _, _, metric, limit, _, direction) in GATES.items():
        line = next(line for line in TEXT.splitlines() if line.startswith(f"| `{gate}` |"))
        assert split in line and metric in line and f"{direction} {limit:g}" in line
    for model in MODELS:
        short = "..._" + model.removeprefix("roofline_").removeprefix("count_law_")
        assert any(f"`{name}`" in TEXT for name in (model, model.removesuffix("_measured"), short)), model
    for split in SPLITS:
        assert split in TEXT
