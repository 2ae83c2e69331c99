"""A device without runs or with few runs: what its sheet and the other devices say. Runs must never make it worse."""

import numpy as np
import pytest
import worlds

AS_GOOD_AS = 0.05
"""An error that three runs may leave where none happened to leave less: their noise is 2 to 3 % each."""


def errors(seeds, spread, draws):
    """By number of runs: MAPE [worlds x devices, draws]."""
    found = {}
    for seed in seeds:
        columns = worlds.world(seed, spread)
        for device in worlds.FOUR:
            for shots, one in worlds.few_shot_errors(columns, device, (3, 5), draws).items():
                found.setdefault(shots, []).append(one)
    return {shots: np.array(ones) for shots, ones in found.items()}


def assert_runs_help(found):
    mean = {shots: ones.mean() for shots, ones in found.items()}
    assert mean[0] <= 0.20 and mean[5] <= 0.08, mean
    assert mean[5] <= mean[3] + 0.005 and mean[3] < mean[0], mean
    none, three = found[0][:, 0], found[3].mean(axis=1)
    assert (three <= np.maximum(none, AS_GOOD_AS)).all(), np.column_stack([none, three])


def test_runs_of_a_new_device_make_it_no_worse():
    assert_runs_help(errors([1], 0.2, 2))


@pytest.mark.long
@pytest.mark.parametrize("spread", [0.1, 0.2])
def test_runs_of_new_devices_make_none_worse_in_twenty_draws(spread):
    """With no runs of a device, and an exactly known population of devices, half the spread would remain: 5 and 11 %.

    At a spread of 0.3 this is 16 %, and 21 % were reached.
    """
    assert_runs_help(errors(range(5), spread, 20))
