"""How the rows of several devices and ranks become one."""

import numpy as np
import pytest
from jouleline.energy.integrate import regions
from jouleline.energy.load import Measurement, Node, Regions, Series
from made_up import POWER_W, fast_lane, slow_lane

SECONDS = 20.0


def gpu(index: int, fast=None, **info) -> Series:
    known = {"index": index, "uuid": f"GPU-{index}", "kind": "gpu", "role": "job", "counter": "ticking"}
    return Series(known | info, fast or fast_lane(SECONDS), slow_lane(SECONDS))


def host(fast) -> Series:
    """What RAPL says, once in ten readings."""
    fast = {name: values[::10] for name, values in fast.items()}
    return gpu(9, fast, uuid="host", kind="rapl", role="host", counter="continuous")


def marks(rank: int, **spans: tuple[float, float]) -> Regions:
    start, end = (np.array([span[k] for span in spans.values()]) * 1e6 for k in (0, 1))
    none = np.zeros(len(spans), dtype=int)
    return Regions(rank, list(spans), none, [None] * len(spans), start, end, none, np.array([]))


def totals(
    devices: list[Series], ranks: list[Regions], events=(), expected: int | None = None
) -> dict[str, dict]:
    """The total row of every region; rank k says that it runs on GPU k."""
    meta = {"period_ms": 20.0, "start_us": 0, "start_utc_us": 0, "end_us": SECONDS * 1e6}
    events = [{"kind": "started"}, *events, {"kind": "ended"}]
    node = Node(0, meta, events, devices, ranks, {r.rank: f"GPU-{r.rank}" for r in ranks})
    rows = regions(Measurement("r", [node], expected))
    return {row["region"]: row for row in rows if row["device_uuid"] is None}


WHOLE = {"run": (2.0, 16.0)}


@pytest.mark.fault(
    "a region that only some ranks mark, and the others go on", "`some_ranks`, their devices' energy"
)
def test_a_region_of_rank_0_alone():
    found = totals([gpu(0), gpu(1)], [marks(0, **WHOLE, checkpoint=(8.0, 12.0)), marks(1, **WHOLE)])
    assert (found["run"]["verdict"], found["run"]["reasons"]) == ("valid", "")
    row = found["checkpoint"]
    assert (row["verdict"], row["reasons"]) == ("degraded", "some_ranks")
    assert row["energy_j"] == pytest.approx(POWER_W * 4, rel=1e-3)


ONE, TWO = marks(0, **WHOLE, checkpoint=(8.0, 12.0)), marks(1, **WHOLE)


@pytest.mark.parametrize(
    ("ranks", "events", "expected"),
    [
        ([ONE, marks(1, run=(2.0, 9.0))], [], None),  # it may have died before the region
        ([ONE, TWO], [], 2),  # a run of the pipeline, in which every rank marks every region
        ([ONE, TWO], [{"kind": "markers_broken", "count": 1}], None),
        ([marks(0, **WHOLE, checkpoint=(8.0, np.nan)), TWO], [], None),
    ],
)
def test_a_rank_that_may_be_lost_is_missing(ranks, events, expected):
    row = totals([gpu(0), gpu(1)], ranks, events, expected)["checkpoint"]
    assert row["verdict"] == "invalid" and "rank_missing" in row["reasons"] and row["energy_j"] is None


@pytest.mark.fault("the host's energy cannot be trusted", "`host_uncertain`; null where it is invalid")
@pytest.mark.parametrize(("cut", "known"), [("none", True), ("gap", True), ("end", False)])
def test_the_energy_of_an_invalid_host_is_null(cut, known):
    fast = fast_lane(SECONDS)
    t_s = fast["t_us"] * 1e-6
    kept = {"none": t_s > 0, "gap": (t_s < 5) | (t_s > 8), "end": t_s < 12}[cut]
    row = totals([gpu(0), host({k: x[kept] for k, x in fast.items()})], [marks(0, **WHOLE)])["run"]
    assert row["verdict"] == "valid" and row["reasons"] == ("" if cut == "none" else "host_uncertain")
    assert row["host_energy_j"] == (pytest.approx(POWER_W * 14, rel=0.02) if known else None)


def test_a_number_that_an_invalid_host_has_is_not_taken():
    torn = {"kind": "samples_unreadable", "device": 9}
    row = totals([gpu(0), host(fast_lane(SECONDS))], [marks(0, **WHOLE)], [torn])["run"]
    assert row["host_energy_j"] is None and (row["verdict"], row["reasons"]) == ("valid", "host_uncertain")


def test_a_sum_with_an_estimate_is_an_estimate():
    estimate = gpu(1, uuid="cpu", kind="estimate", counter="continuous")
    row = totals([gpu(0), estimate], [marks(0, **WHOLE)])["run"]
    assert row["energy_source"] == "estimate"
