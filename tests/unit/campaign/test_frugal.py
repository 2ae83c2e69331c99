"""What a campaign that chooses its own rows is refused for before anything runs."""

import pytest
from jouleline.campaign import config
from jouleline.errors import UserError
from paths import ROOT

AXES = {"layers": [2, 4, 6], "hidden": [64, 128], "seq_len": [32, 64]}
GRID = {
    "defaults": {"heads": 2, "intermediate": 256, "micro_batch": 4},
    "blocks": [{"name": "shape", "axes": AXES}],
}
GOOD = {"first": 8, "batch": 2, "until": {"error": 0.05}}


def load(frugal, **grid):
    return config.load({"campaign": "mine", "grid": {**GRID, **frugal, **grid}}, ROOT).runs


def test_its_rows_are_those_of_the_grid_without_it():
    assert load({"frugal": GOOD}) == load({})


@pytest.mark.parametrize(
    ("frugal", "text"),
    [
        ({**GOOD, "first": 4}, "grid.frugal.first: 4 is less than the minimum of 8"),
        ({**GOOD, "first": 13}, "grid.frugal.first is 13, and the grid has 12 runs"),
        ({"first": 8, "batch": 2}, "grid.frugal: until is missing"),
        ({**GOOD, "until": {}}, "grid.frugal.until says nothing; give one of error, kwh, gpu_hours, rounds"),
        ({**GOOD, "until": {"error": 0}}, "grid.frugal.until.error"),
        (
            {**GOOD, "until": {"rounds": 4}},
            "until.rounds is 4, and the grid's 12 runs are all measured after 3",
        ),
        ({**GOOD, "until": {"joules": 4}}, "grid.frugal.until: unknown key joules"),
        ({**GOOD, "target": "choose"}, "grid.frugal.target is choose, and nothing is asked; give the key"),
        ({**GOOD, "target": "all"}, "grid.frugal.target: 'all' is not known; choose from grid, choose"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(frugal, text):
    with pytest.raises(UserError) as caught:
        load({"frugal": frugal})
    assert text in str(caught.value)


def test_held_out_rows_cannot_be_learnt_from():
    with pytest.raises(UserError, match="is labelled holdout"):
        load(
            {"frugal": GOOD},
            blocks=[
                *GRID["blocks"],
                {"axes": {"layers": [8]}, "set": {"hidden": 64, "seq_len": 32}, "split": "holdout"},
            ],
        )
