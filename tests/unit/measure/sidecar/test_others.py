"""Other processes at work during a measurement: no region of any meter is valid without a reason."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest
from fake_nvml.driver import constant
from jouleline.energy.integrate import regions
from jouleline.energy.load import Node, Series, load_measurement
from jouleline.energy.state import event_reasons
from jouleline.measure.meters.choice import METERS
from jouleline.measure.raw import proc
from jouleline.measure.sidecar import others
from jouleline.measure.sidecar.others import LOOK_NS, TELL_NS, Others

# Of each meter: the kind of its devices, and what is said of them.
CODES = {
    "nvml": ("gpu", "foreign_cpus"),
    "rapl": ("rapl", "foreign_load"),
    "estimate": ("estimate", "foreign_cpus"),
}
LOOK_S = LOOK_NS * 1e-9


class Machine:
    """A machine whose own load is a quarter of it, with others' at a share of `others`."""

    def __init__(self, monkeypatch):
        self.s = self.others_s = 0.0
        self.cpus = os.cpu_count()
        monkeypatch.setattr(others.time, "monotonic_ns", lambda: int(self.s * 1e9))
        monkeypatch.setattr(
            others, "busy_ns", lambda stat: int((self.s / 4 + self.others_s) * 1e9 * self.cpus)
        )
        monkeypatch.setattr(Others, "_own_ns", lambda _: int(self.s / 4 * 1e9 * self.cpus))

    def go(self, seconds: float, share: float) -> None:
        self.s += seconds
        self.others_s += seconds * share


@pytest.fixture
def machine(monkeypatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize(("share", "seen"), [(0.0, False), (0.05, False), (0.2, True)])
def test_more_than_a_tenth_of_the_machine_is_told(machine, share, seen):
    load = Others(1)
    assert load.look() == []
    machine.go(LOOK_S, share)
    found = load.look(last=True)
    assert bool(found) == seen
    if seen:
        assert found[0]["cores"] == pytest.approx(share * machine.cpus, abs=0.01)
        assert (found[0]["start_us"], found[0]["end_us"]) == (0, LOOK_NS // 1000)


def test_a_stretch_is_one_event_when_it_ends_or_has_grown_long_and_the_last_second_counts(machine):
    load, told = Others(1), []
    for share in (0.5, 0.5, 0.0, 0.5):
        machine.go(LOOK_S, share)
        told += load.look()
    machine.go(0.3, 0.5)
    told += load.look(last=True)
    edges_s = [event[edge] * 1e-6 for event in told for edge in ("start_us", "end_us")]
    assert edges_s == pytest.approx([0, 2 * LOOK_S, 3 * LOOK_S, 4 * LOOK_S + 0.3])
    machine.go(TELL_NS * 1e-9 + 1, 0.5)
    assert len(load.look()) == 1


def test_a_machine_that_does_not_say_tells_nothing(machine, monkeypatch):
    monkeypatch.setattr(others, "busy_ns", lambda stat: None)
    load = Others(1)
    machine.go(LOOK_S, 0.5)
    assert load.look(last=True) == []


def test_every_meter_has_its_word():
    assert set(CODES) == set(METERS)


@pytest.mark.parametrize(("kind", "code"), CODES.values(), ids=CODES)
def test_it_is_a_reason_where_it_lies_in_the_region(kind, code):
    event = {"kind": "foreign_load", "cores": 1.0, "start_us": 0, "end_us": 1_000_000}
    node = Node(0, {}, [{"kind": "started"}, event, {"kind": "ended"}], [], [], {})
    series = Series({"kind": kind, "index": 0, "role": "host"}, {}, {})
    assert event_reasons(node, series, 0.5e6, 2e6) == {code}
    assert event_reasons(node, series, 1.5e6, 2e6) == set()


@contextlib.contextmanager
def busy(stat, cores: float):
    """A kernel's count of a machine on which so many CPUs are at work."""
    over, begin = threading.Event(), time.monotonic()

    def write() -> None:
        while not over.wait(0.02):
            ticks = int((time.monotonic() - begin) * cores * 1e9 / proc.TICK_NS)
            beside = stat.with_suffix(".new")
            beside.write_text(f"cpu  {ticks} 0 0 0 0 0 0 0 0 0\n")
            beside.replace(stat)

    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


@pytest.mark.fault(
    "others at work on the machine", "`foreign_load`: RAPL counts it, degraded; else the note `foreign_cpus`"
)
@pytest.mark.parametrize("meter", ["nvml", "estimate"])
def test_a_region_beside_others_has_a_reason(node, tmp_path, meter):
    n, stat = node(), tmp_path / "stat"
    n.gpus[0].waves(constant(0, 300))
    command = [sys.executable, "-m", "jouleline.commands.measure", "--out", str(tmp_path / "out")]
    command += ["--idle-s", "0", "--meter", meter, "--", "sleep", "1"]
    with busy(stat, os.cpu_count() + 2.0):
        environment = n.environment(JOULELINE_PROC_STAT=str(stat))
        subprocess.run(command, env=environment, check=True, timeout=60)
    (total,) = (row for row in regions(load_measurement(tmp_path / "out")) if row["device_uuid"] is None)
    assert (total["verdict"], total["reasons"]) == ("valid", "foreign_cpus")


def test_the_machines_load_is_that_of_all_cpus_and_children_count_as_ones_own():
    load = Others(os.getpid())
    before, mine = proc.busy_ns(), load.seen.own_ns
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    load.look(last=True)
    assert proc.busy_ns() - before >= 0.2e9 and load.seen.own_ns - mine >= 0.25e9
