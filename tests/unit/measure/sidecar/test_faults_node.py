"""One node with sixteen GPUs, each with its own fault. Each fault is reported, and none affects another GPU."""

import time
from dataclasses import dataclass

import pytest
from fake_nvml.driver import (
    DELAY,
    FREEZE_CATCH_UP,
    FREEZE_LOSE,
    GPU_LOST,
    HANG,
    RESET_TO,
    FakeNode,
    constant,
    square,
)  # fmt: skip
from fake_nvml.session import Session, codes, standard_u_j

WINDOW_S = 6.0


@dataclass
class Case:
    """A fault: how it is injected at a time, what must be reported, and what may be said about the energy."""

    what: str
    inject: object
    reported: tuple[str, ...]
    energy: str  # exact: within 0.5 %; bridged: within 3 u and 15 %; null
    verdict: tuple[str, ...] = ("degraded",)


def _reset(value_j):
    return lambda node, gpu, t: node.gpus[gpu].add_event(RESET_TO, t, value_j=value_j)


def _freeze(kind, seconds):
    return lambda node, gpu, t: node.gpus[gpu].add_event(kind, t, t + seconds)


def _lost(seconds):
    return lambda node, gpu, t: node.fault("*", code=GPU_LOST, gpu=gpu, from_s=t, to_s=t + seconds)


def _fields(kind, seconds, to_s=1e12):
    return lambda node, gpu, t: node.fault(
        "nvmlDeviceGetFieldValues", kind, gpu=gpu, from_s=t, to_s=min(t + to_s, 1e12), seconds=seconds
    )


def _set(**values):
    def inject(node, gpu, t):
        for name, value in values.items():
            setattr(node.gpus[gpu], name, t if value == "t" else value)

    return inject


def _throttle(node, gpu, t):
    _set(throttle_field=270, throttle_from_s=t, throttle_to_s=t + 1.0)(node, gpu, t)


def _foreign(node, gpu, t):
    node.gpus[gpu].pids[0], node.gpus[gpu].n_pids = 1, 1


CASES = [
    Case("nothing (control)", lambda *_: None, (), "exact", ("valid",)),
    Case("counter reset to zero", _reset(0.0), ("counter_reset",), "bridged"),
    Case("counter reset to a lower value", _reset(5000.0), ("counter_reset",), "bridged"),
    Case("counter reset to a higher value", _reset(900000.0), ("counter_reset",), "bridged"),
    Case("counter frozen 1 s, energy lost", _freeze(FREEZE_LOSE, 1.0), ("counter_stuck",), "bridged"),
    Case("counter frozen 1 s, then catches up", _freeze(FREEZE_CATCH_UP, 1.0), ("counter_stuck",), "bridged"),
    Case("GPU lost for good", _lost(1e9), ("device_lost",), "null", ("invalid",)),
    Case("GPU lost for 1 s", _lost(1.0), ("gap", "call_failed"), "exact"),
    Case(
        "calls that take 250 ms",
        _fields(DELAY, 0.25),
        ("slow_calls",),
        "bridged",
        ("degraded", "invalid"),
    ),
    Case("call that hangs for good", _fields(HANG, 0), ("device_lost",), "null", ("invalid",)),
    Case("no energy counter", _set(no_counter=1), ("no_counter",), "power"),
    Case("power of the module only", _set(module_only=1), ("module_scope",), "power"),
    Case("thermal slowdown", _throttle, ("throttled",), "exact"),
    Case("temperature drifts", _set(temperature_rate_c_s=4.0), ("thermal_drift",), "exact"),
    Case("power limit changed", _set(limit_after_w=400.0, limit_change_s="t"), ("limits_changed",), "exact"),
    Case("foreign process on the GPU", _foreign, ("foreign_process",), "exact"),
]


@pytest.fixture(scope="module")
def faulty(libraries, tmp_path_factory):
    """(session, rows) of one run with all the faults; they strike 2.5 s into the window."""
    for lead_s in (3.0, 12.0):  # a sidecar that is ready too late for the faults is started once more
        folder = tmp_path_factory.mktemp("faulty")
        node = FakeNode(folder / "node", libraries, len(CASES))
        start = node.now_s() + lead_s
        for number, case in enumerate(CASES):
            node.gpus[number].waves(constant(0, 90), square(start, 150, 550, 0.27, phase_s=0.011 * number))
            case.inject(node, number, start + 3.0)
        session = Session(node, folder / "out")
        assert session.ready, session.process.stderr.read()
        if node.now_s() < start + 0.5:
            break
        session.kill()
    time.sleep(max(start + 0.5 - node.now_s(), 0))
    with session.region("window"):
        time.sleep(WINDOW_S)
    return session, session.finish()


def _parameter(number: int, case: Case):
    energies = {"exact": "energy exact", "null": "no energy", "bridged": "energy within its uncertainty"}
    said = [f"`{code}`" for code in case.reported] + [energies.get(case.energy, "energy from power")]
    marks = [pytest.mark.fault(case.what, ", ".join(said))] if case.reported else []
    return pytest.param(number, id=case.what, marks=marks)


@pytest.mark.parametrize("number", [_parameter(*item) for item in enumerate(CASES)])
def test_a_fault_is_flagged_and_its_energy_is_right_or_null(faulty, number):
    session, rows = faulty
    case, row, truth = CASES[number], session.row(rows, number), session.true_energy_j(number)
    assert set(case.reported) <= codes(row)
    assert row["verdict"] in case.verdict
    if case.energy == "null" or row["verdict"] == "invalid":
        assert row["energy_j"] is None and row["mean_power_w"] is None
        return
    error = abs(row["energy_j"] - truth)
    limits = {
        "exact": 0.01 * truth,
        "bridged": max(3 * standard_u_j(row), 0.01 * truth),
        "power": 0.12 * truth,
    }
    assert error < limits[case.energy], (case.what, row["energy_j"], truth, standard_u_j(row), row["reasons"])
    assert error < 0.15 * truth


def test_the_control_has_no_flag_and_the_total_is_null(faulty):
    session, rows = faulty
    assert codes(session.row(rows, 0)) == set()
    total = session.row(rows)
    assert total["verdict"] == "invalid" and total["energy_j"] is None
    assert {"counter_reset", "device_lost", "foreign_process"} <= codes(total)


@pytest.mark.fault("a call that hangs, and slow ones, beside other GPUs", "the others lose no reading")
def test_no_gpu_waits_for_another(faulty):
    """The hanging GPU and the slow GPU cost the others no reading."""
    session, rows = faulty
    assert session.row(rows, 0)["longest_gap_s"] < 1.0
    assert session.row(rows, 0)["n_samples"] > 0.5 * WINDOW_S / 0.02
