"""What to measure first and next, on runs whose truth is known."""

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.features import Data
from jouleline.model.frugal import belief, choose
from jouleline.model.frugal.greedy import Beliefs
from jouleline.model.frugal.table import suggest
from jouleline.model.roofline.fit import Roofline, row_values
from jouleline.model.roofline.law import inputs, step
from jouleline.model.table.runs import take

RAW = ("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch", "precision", "vocab_size")
CONTEXT = choose.context()
CONTEXT.options["starts"] = 4


@pytest.fixture(scope="module")
def world():
    """(twenty runs, forty candidates, the fit on the runs)."""
    columns = synthetic.table(60, noise=0.01)
    runs, candidates = Data.of(take(columns, np.arange(20))), Data.of(take(columns, np.arange(20, 60)))
    return runs, candidates, choose.fitted(runs, CONTEXT)


def chosen(runs, candidates, state, count=5, targets=None):
    expected = choose.expect(candidates, state, CONTEXT)
    joules = expected.step_energy_j * candidates.steps
    return choose.measure_next(runs, candidates, expected, joules, count, CONTEXT, state, targets)


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
    """A parameter of the fit is moved. The log time and the log power of each row must move as the beliefs say."""
    _, candidates, state = world
    known = belief.after(candidates, state, CONTEXT)
    values, _, _ = row_values(state, candidates, CONTEXT, Roofline().options(CONTEXT))
    moved = {**values, "peak_flops": values["peak_flops"] + 1e-4}
    time, energy = (
        np.subtract(step(moved, inputs(candidates))[:2], step(values, inputs(candidates))[:2]) / 1e-4
    )
    for slope, part in zip((time, energy - time), known, strict=True):
        scaled = [
            column / slope for column in part.law.T if np.allclose(np.ptp(column / slope), 0, atol=1e-2)
        ]
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
    raw = {name: columns[name].astype(object) for name in RAW}
    raw["hidden"][3] = raw["intermediate"][3] = 1_000_000
    raw["heads"][3] = 10
    found, too_large = suggest(columns, raw, "rows.csv", 4)
    assert too_large.tolist() == [row == 3 for row in range(20)]
    assert found["order"].tolist() == [1, 2, 3, 4] and (found["expected_energy_j"] > 0).all()
    with pytest.raises(UserError, match="99 runs are asked for; rows.csv has 19 candidates"):
        suggest(columns, raw, "rows.csv", 99)


def test_the_fit_predicts_the_candidates_once(monkeypatch):
    """An earlier version predicted the same rows three times for one list of suggestions."""
    columns, asked = synthetic.table(20, noise=0.01), []
    predict = choose.Hybrid.predict
    monkeypatch.setattr(
        choose.Hybrid, "predict", lambda self, *a: asked.append(len(a[1])) or predict(self, *a)
    )
    suggest(columns, {name: values for name, values in columns.items() if name in RAW}, "rows.csv", 2)
    assert asked == [20]


def test_targets_are_what_is_learnt_about(world):
    """The run that is chosen for some rows lowers their variance more per joule than any other candidate would."""
    runs, candidates, state = world
    order = np.argsort(candidates.step_energy_j)
    expected = choose.expect(candidates, state, CONTEXT)
    joules = expected.step_energy_j * candidates.steps
    for part in (candidates.take(order[:8]), candidates.take(order[-8:])):
        (found,) = chosen(runs, candidates, state, 1, part)
        known = belief.after(choose.joined(choose.joined(runs, candidates), part), state, CONTEXT)
        measured, rows = np.arange(len(runs)), len(runs) + len(candidates) + np.arange(len(part))

        def variance(measured, known=known, rows=rows):
            return sum(Beliefs(part, measured).variance[rows].mean() for part in known)

        now = variance(measured)
        left = [variance(np.append(measured, len(runs) + candidate)) for candidate in range(len(candidates))]
        assert found.candidate == np.argmax((now - np.array(left)) / joules)
        assert found.error_before == pytest.approx(now**0.5)
