"""Links between nodes: what a calibration over the same number of nodes gives the law, and what is unknown without
it."""

import numpy as np
import pytest
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.machine import Machines
from jouleline.model.roofline import law as roofline
from jouleline.model.roofline.fit import Roofline
from jouleline.model.roofline.problem import Problem
from jouleline.model.roofline.structure import Options, build
from test_roofline import assert_jacobian_is_that_of_differences

ACHIEVED = {1: (8e10, 3e-5), 2: (4e9, 2e-4), 4: (3e9, 3e-4)}
"""(link B/s, latency s) that training gets from the links of as many nodes."""
SHARE = 0.8
"""Of the calibrated rate."""


def machines(*spans: int) -> Machines:
    """The device, with its links calibrated over these numbers of nodes."""
    entries = []
    for nodes in spans:
        rate, latency_s = ACHIEVED[nodes]
        shared = {"precision": None, "nodes": nodes}
        entries.append({"quantity": "link_bandwidth_all_reduce", "value": rate / SHARE, **shared})
        entries.append({"quantity": "link_latency_all_reduce", "value": latency_s * SHARE, **shared})
    return Machines({"device": synthetic.DEVICE, "device_kind": "cuda", "quantities": entries})


@pytest.fixture(scope="module")
def data() -> Data:
    """Rows on 1, 2 and 4 nodes that follow the law, with the links of the same number of nodes."""
    strategies = ((1, 1, 0), (2, 1, 1), (4, 1, 0), (4, 1, 1), (4, 1, 3), (4, 2, 1))
    columns = synthetic.table(120, seed=3, noise=0.0, strategies=strategies)
    spread = np.random.default_rng(4).choice([1, 2, 4], 120)
    nodes = np.where(columns["device_count"] == 4, spread, 1)
    columns |= {"nodes": nodes, "gpus_per_node": columns["device_count"] // nodes}
    values = {name: np.array([value]) for name, value in synthetic.TRUTH.items()}
    values["link_bandwidth"] = np.log([ACHIEVED[n][0] for n in nodes])
    values["collective_latency_s"] = np.log([ACHIEVED[n][1] for n in nodes])
    with np.errstate(over="ignore"):
        log_time, log_energy, _, _ = roofline.step(values, roofline.inputs(Data.of(columns)))
    steps = columns["steps"]
    return Data.of(columns | {"time_s": np.exp(log_time) * steps, "energy_j": np.exp(log_energy) * steps})


def fit(data: Data, known: Machines, *trained: int):
    """A law that is fitted on the rows of some numbers of nodes, and its predictions for all rows."""
    weights = np.isin(data.columns["nodes"], trained).astype(float)[None]
    context = Context(known)
    state = Roofline().fit(data, weights, context)[0]
    return state, Roofline().predict(state, data, context)[0]


def worst(data: Data, prediction, nodes: int) -> float:
    """The largest relative error of time over the rows on `nodes` nodes."""
    rows = data.columns["nodes"] == nodes
    assert rows.sum() >= 10
    return float(np.max(np.abs(prediction.step_time_s[rows] / data.step_time_s[rows] - 1)))


def test_time_between_nodes_is_predicted_from_their_calibration_alone(data):
    """No calibration says how much energy a byte between nodes costs."""
    _, prediction = fit(data, machines(1, 2, 4), 1)
    assert worst(data, prediction, 1) < 0.02
    assert worst(data, prediction, 2) < 0.1 and worst(data, prediction, 4) < 0.1
    inside = data.columns["nodes"] == 1
    np.testing.assert_array_equal(prediction.identified, inside)
    np.testing.assert_array_equal(np.isfinite(prediction.step_energy_j), inside)


@pytest.mark.parametrize("spans", [(), (1,), (1, 2)])
def test_what_was_neither_calibrated_nor_trained_on_is_unknown(data, spans):
    _, prediction = fit(data, machines(*spans), 1)
    for nodes in (2, 4):
        rows = data.columns["nodes"] == nodes
        assert (np.isfinite(prediction.step_time_s[rows]) == (nodes in spans)).all()
        assert not prediction.identified[rows].any() and np.isnan(prediction.step_energy_j[rows]).all()


def test_a_number_of_nodes_without_calibration_is_like_those_that_were_trained_on(data):
    """The result is the same as without any calibration: one rate holds between nodes."""
    state, prediction = fit(data, machines(1, 2), 1, 2)
    assert worst(data, prediction, 2) < 0.02
    rows = data.columns["nodes"] == 4
    assert prediction.identified[rows].all()
    groups = state["slots"]["link_bandwidth"]["groups"]
    between = f"{synthetic.DEVICE}, between nodes"
    assert groups[between] == groups[f"{synthetic.DEVICE}, 2 nodes"]


def test_what_trained_links_between_nodes_showed_holds_for_others_that_are_calibrated(data):
    """This holds for rows in the table of the fit and for rows outside of it."""
    known = machines(1, 2, 4)
    _, prediction = fit(data, known, 1, 2)
    rows = data.columns["nodes"] == 4
    assert worst(data, prediction, 4) < 0.1 and prediction.identified[rows].all()
    without = data.take(~rows)
    few = Roofline().fit(without, np.ones((1, len(without))), Context(known))[0]
    assert not any("4 nodes" in label for label in few["slots"]["link_bandwidth"]["groups"])
    outside = Roofline().predict(few, data.take(rows), Context(known))[0]
    np.testing.assert_allclose(outside.step_time_s, prediction.step_time_s[rows], rtol=1e-4)


def test_calibrated_numbers_of_nodes_share_one_deviation(data):
    known = machines(1, 2, 4)
    problem = Problem(data, np.ones((1, len(data))), Context(known), Options())
    names = [name for name in problem.structure.names if name.startswith("link_bandwidth[")]
    assert names == [
        f"link_bandwidth[{synthetic.DEVICE}, between nodes, calibrated]",
        f"link_bandwidth[{synthetic.DEVICE}, within node]",
    ]
    assert_jacobian_is_that_of_differences(problem)


def test_priors_that_are_switched_off_leave_one_group_between_nodes(data):
    without = Context(machines(1, 2, 4), {"calibration_priors": False})
    state = Roofline().fit(data, np.ones((1, len(data))), without)[0]
    labels = state["slots"]["link_bandwidth"]["groups"]
    assert set(labels) == {f"{synthetic.DEVICE}, {place}" for place in ("within node", "between nodes")}


def test_what_is_kept_of_one_calibration_is_not_taken_for_another(data):
    for spans in [(1, 2, 4), (1,), (1, 2)] * 3:  # each may get the memory address of the one before
        labels = build(data, machines(*spans), Options()).slots["link_bandwidth"].labels
        assert {f"{synthetic.DEVICE}, {nodes} nodes" in labels for nodes in set(spans) - {1}} <= {True}
        assert (f"{synthetic.DEVICE}, between nodes" in labels) == (spans != (1, 2, 4))
