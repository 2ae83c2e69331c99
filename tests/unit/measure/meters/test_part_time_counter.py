"""Counters that sum only 25 ms of every 100 ms: correct where the power hides nothing from them, else refused."""

import math
import time

import pytest
from fake_nvml.driver import FakeNode, constant, square
from fake_nvml.session import Session, codes, standard_u_j

WINDOW_S, STEP_S = 12.0, 0.1003
STEADY, STEPS, ALIASED, TRUE_ALIASED = range(4)


@pytest.fixture(scope="module")
def part_time(libraries, tmp_path_factory):
    """(session, rows) of four GPUs, the last with a true counter."""
    folder = tmp_path_factory.mktemp("part-time")
    node = FakeNode(folder / "node", libraries, 4)
    start = node.now_s() + 2.5
    for gpu in range(TRUE_ALIASED):
        node.gpus[gpu].counter_window_s = 0.025
    node.gpus[STEADY].waves(constant(0, 400))
    node.gpus[STEPS].waves(square(0, 150, 550, 0.27))
    for gpu in (ALIASED, TRUE_ALIASED):
        # From the region's start on each tick sees the end of a step's high part, 0.3 ms earlier each time.
        phase_s = node.gpus[gpu].tick_phase_s
        tick_s = phase_s + 0.1 * math.ceil((start - phase_s) / 0.1)
        node.gpus[gpu].waves(square(0, 100, 600, STEP_S, 0.6, phase_s=(0.058 - tick_s) % STEP_S))
    session = Session(node, folder / "out")
    time.sleep(max(start - node.now_s(), 0))
    with session.region("window"):
        time.sleep(WINDOW_S)
    time.sleep(1.2)
    return session, session.finish()


@pytest.mark.parametrize("gpu", [STEADY, STEPS])
def test_a_part_time_counter_is_right_where_it_sees_the_mean(part_time, gpu):
    session, rows = part_time
    row, truth = session.row(rows, gpu), session.true_energy_j(gpu)
    assert row["verdict"] == "valid"
    assert abs(row["energy_j"] - truth) < 3 * math.hypot(standard_u_j(row), row["energy_gain_u_j"])


@pytest.mark.fault(
    "counter that sums up part of the time, and steps that line up with it",
    "`counter_contradicted`, no energy",
)
def test_a_part_time_counter_that_aliases_is_refused(part_time):
    session, rows = part_time
    row = session.row(rows, ALIASED)
    assert "counter_contradicted" in codes(row)
    assert row["verdict"] == "invalid" and row["energy_j"] is None


def test_a_true_counter_under_the_same_steps_is_exact(part_time):
    session, rows = part_time
    row = session.row(rows, TRUE_ALIASED)
    assert row["verdict"] == "valid"
    # Each edge lies inside a tick that holds a whole step of 500 W.
    assert row["energy_j"] == pytest.approx(session.true_energy_j(TRUE_ALIASED), rel=0.006)
