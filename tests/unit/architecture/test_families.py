"""Every family's parameters and FLOP against the models of transformers, counted on the meta device."""

import decoders
import pytest
from jouleline.architecture import proxies
from jouleline.architecture.counter import count_step

VARIANTS = ("full", "frozen", "all frozen", "lora", "lora above frozen")
VARIANTS += tuple(f"{one} checkpointed" for one in VARIANTS)


def differences(row: dict) -> dict[str, tuple[float, float]]:
    """What the proxies say of a row and what was counted, where they are not the same."""
    model = decoders.build(row)
    counted = count_step(model, "clm", row["seq_len"], row["micro_batch"])
    counted["compute_flop"] = counted.pop("training_flop")
    found = proxies(row)
    names = ("parameters", "trainable_parameters", "compute_flop")
    return {name: (found[name], counted[name]) for name in names if found[name] != counted[name]}


@pytest.mark.parametrize("model_type", decoders.FAMILIES)
def test_parameters_and_flop_are_those_of_the_model(model_type):
    for number, variant in enumerate(VARIANTS):
        row = decoders.draw(model_type, variant, number)
        assert differences(row) == {}, row
