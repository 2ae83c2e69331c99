"""A campaign that chooses its own rows, on a real Slurm: rounds, an interruption within one, and what is run again."""

import signal

import pytest
from jouleline.files import read_json

from tests.workflow.slurm_runs import make_checkout, start

pytestmark = [pytest.mark.slurm, pytest.mark.long]


def test_rounds_are_jobs_and_an_interrupted_round_goes_on(slurm, tmp_path):
    """Two rounds, eight runs and two: the first is interrupted, nothing finished is measured twice."""
    checkout = make_checkout(tmp_path / "checkout", 0.5)
    axes = {"layers": [1, 2, 3], "hidden": [64, 128], "seq_len": [32, 64]}
    frugal = {"first": 8, "batch": 2, "until": {"rounds": 2}}
    grid = {"frugal": frugal, "blocks": [{"axes": axes, "set": {"heads": 2}}]}
    checkout.campaign["grid"] = {"defaults": checkout.campaign["grid"]["defaults"], **grid}
    checkout.save()
    folder = checkout.root / "results/cluster"

    def measured():
        return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/run.json")}

    def chosen(number):
        return [entry["run_id"] for entry in read_json(folder / f"rounds/{number}/rows.json")["runs"]]

    with start(slurm, checkout, "measurements") as campaign:
        campaign.until(lambda: len(measured()) >= 2, "two finished runs", 300)
        campaign.process.send_signal(signal.SIGINT)
        campaign.wait(120)
    before = measured()
    first = chosen(1)
    assert 2 <= len(before) < 8 and set(before) <= set(first) and not (folder / "rounds/2").exists()

    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(900) == 0, campaign.said()
    after = measured()
    assert before.items() <= after.items(), "what was finished is not measured again"
    assert chosen(1) == first and len(chosen(2)) == 2 and chosen(3) == []
    assert set(after) == {*first, *chosen(2)}, "what is not chosen is no job"
    assert read_json(folder / "rounds/3/rows.json")["stopped"] == "2 rounds are done"

    # Run again, nothing has changed. With one round more, only that round runs.
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(120) == 0 and "Nothing to be done" in campaign.said(), campaign.said()
    frugal["until"] = {"rounds": 3}
    checkout.save()
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(400) == 0, campaign.said()
    assert after.items() <= measured().items() and set(measured()) == {*after, *chosen(3)}
