"""The record of a run."""

from jouleline.measure.node.outcome import Outcome
from jouleline.measure.node.place import Place
from jouleline.measure.train.agent import RunAgent
from jouleline.measure.train.record import RunRequest


def test_a_clock_that_is_set_meanwhile_does_not_change_how_long_a_run_took(tmp_path, monkeypatch):
    request = RunRequest("r", {}, "k", {"startup_timeout_s": 1}, "x", tmp_path, tmp_path, Place())
    agent = RunAgent(request)
    monkeypatch.setattr("time.time", lambda: agent.started - 3600)
    record = agent._record(Outcome("ok"), [], [], {})
    assert record["wall_s"] >= 0 and record["ended_utc"] < record["started_utc"]
