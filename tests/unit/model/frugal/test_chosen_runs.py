"""What to measure first and next, on runs whose truth is known."""

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.features import Data
from jouleline.model.frugal import belief, choose
from jouleline.model.frugal.table import suggest
from jouleline.model.roofline.fit import Roofline, row_values
from jouleline.model.roofline.law import inputs, step
from jouleline.model.table.runs import take

CONTEXT = choose.context()
CONTEXT.options["starts"] = 4


@pytest.fixture(scope="module")
def world():
    """(twenty runs, forty candidates, the fit on the runs)."""
    columns = synthetic.table(60, noise=0.01)
    runs, candidates = Data.of(take(columns, np.arange(20))), Data.of(take(columns, np.arange(20, 60)))
    return runs, candidates, choose.fitted(runs, CONTEXT)


def chosen(runs, candidates, state, count=5):
    joules = choose.expected_joules(candidates, state, CONTEXT)
    return choose.measure_next(runs, candidates, joules, count, CONTEXT, state)


def test_no_measurement_of_a_candidate_reaches_the_choice(world):
    runs, candidates, state = world
    blind = {name: np.full(len(candidates), np.nan) for name in ("energy_j", "time_s", "mean_power_w")}
    assert chosen(runs, Data.of({**candidates.columns, **blind}), state) == chosen(runs, candidates, state)


def test_each_choice_lowers_the_expected_error_and_says_what_it_expects(world):
    runs, candidates, state = world
    found = chosen(runs, candidates, state)
    assert len({one.candidate for one in found}) == 5
    assert all(one.error_after < one.error_before for one in found)
    assert [one.error_before for one in found[1:]] == [one.error_after for one in found[:-1]]
    truth = candidates.step_energy_j[[one.candidate for one in found]]
    assert np.abs(np.array([one.step_energy_j for one in found]) / truth - 1).mean() < 0.3
    assert all("expected error" in one.reason for one in found)


def test_directions_are_the_slopes_of_the_law(world):
    """Moving one parameter of the fit moves the log energy of each row as the belief says."""
    _, candidates, state = world
    known = belief.after(candidates, state, CONTEXT)
    values, _, _ = row_values(state, candidates, CONTEXT, Roofline().options(CONTEXT))
    moved = {**values, "peak_flops": values["peak_flops"] + 1e-4}
    slope = (step(moved, inputs(candidates))[1] - step(values, inputs(candidates))[1]) / 1e-4
    scaled = [column / slope for column in known.law.T if np.allclose(np.ptp(column / slope), 0, atol=1e-2)]
    assert scaled and (np.abs(slope) > 0).all()


def test_too_few_runs_are_gone_on_from_by_design(world):
    runs, candidates, _ = world
    few = runs.take(np.arange(4))
    assert choose.fitted(few, CONTEXT) is None and choose.first_needed(candidates, CONTEXT) >= 8
    found = chosen(few, candidates, None, 3)
    assert [one.error_before for one in found] == [None] * 3 and "first set" in found[0].reason


def test_an_unmeasured_device_is_what_teaches_most(world):
    runs, candidates, state = world
    other = {**candidates.columns, "device": candidates.columns["device"].copy()}
    other["device"][:5] = "NVIDIA H100 80GB HBM3"
    found = chosen(runs, Data.of(other), state, 2)
    assert found[0].candidate < 5


def test_suggestions_leave_out_what_cannot_fit_and_take_repeats():
    columns = synthetic.table(20, noise=0.01)
    names = ("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch", "precision", "vocab_size")
    raw = {name: columns[name].astype(object) for name in names}
    raw["hidden"][3] = raw["intermediate"][3] = 1_000_000
    raw["heads"][3] = 10
    found, too_large = suggest(columns, raw, "rows.csv", 4)
    assert too_large.tolist() == [row == 3 for row in range(20)]
    assert found["order"].tolist() == [1, 2, 3, 4] and (found["expected_energy_j"] > 0).all()
    with pytest.raises(UserError, match="99 runs are asked for; rows.csv has 19 candidates"):
        suggest(columns, raw, "rows.csv", 99)
