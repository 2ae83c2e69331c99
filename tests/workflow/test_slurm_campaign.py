"""The pipeline itself on a real Slurm: `snakemake --profile slurm`, single-node and two-node rows, real ranks."""

import os
import re
import subprocess
import sys

import pytest
from jouleline.files import read_json
from jouleline.schemas import read_table
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.runs import RUNS

from tests.workflow.slurm_runs import jobs_of, make_checkout, runs_of, start

pytestmark = pytest.mark.slurm


def test_the_doctor_sends_one_short_job_to_each_kind_of_node(slurm, tmp_path):
    """Of nodes by themselves and of two together, none of which has a GPU that NVML knows."""
    rows = [{"layers": 1}, {"layers": 2, "gpus_per_node": 2}, {"layers": 1, "nodes": 2, "zero_stage": 1}]
    checkout = make_checkout(tmp_path / "checkout", 0.5, *rows, device="cuda")
    with start(slurm, checkout, "doctor") as campaign:
        assert campaign.wait(120) == 1, campaign.said()
    said = campaign.said()
    assert said.count("has been submitted with SLURM jobid") == 2
    nodes = re.findall(r"^node (n\d)$", said, re.M)
    assert len(nodes) == 3 and len(set(nodes[1:])) == 2, said
    assert len(re.findall(r"^FAILED +device +protocol.device is cuda and this node", said, re.M)) == 3
    # The nodes of one job look for each other by name; those of the test cluster share one network interface.
    assert sorted(re.findall(r"^\w+ +peers +(n\d) by \w+", said, re.M)) == sorted(nodes[1:]), said
    assert "Trying to restart" not in said
    assert not (checkout.root / "results/cluster/runs").exists()


@pytest.mark.long
def test_the_whole_campaign_with_its_report(slurm, tmp_path):
    """The demonstration's shapes, reduced, with two-node rows, down to the report, in few jobs."""
    rows = [{"layers": layers, "hidden": hidden, "heads": 2} for layers in (1, 2, 3) for hidden in (64, 128)]
    rows += [{"layers": layers, "nodes": 2, "zero_stage": stage} for layers in (1, 2) for stage in (1, 3)]
    checkout = make_checkout(tmp_path / "checkout", 0.5, *rows)
    with start(slurm, checkout) as campaign:
        assert campaign.wait(560) == 0, campaign.said()
    assert len(list((checkout.root / "results/cluster/runs").glob("*/run.json"))) == len(rows)
    assert (checkout.root / "results/cluster/report.html").stat().st_size > 10_000
    # Nodes of 400 W: Slurm's figure of a step is that times its nodes and seconds, which hold the window.
    for run in read_table(RUNS, checkout.root / "results/cluster/tables/runs.parquet"):
        assert run["slurm_energy_j"] > 400 * run["nodes"] * run["time_s"]
    checks = read_table(CHECKS, checkout.root / "results/cluster/tables/checks.parquet")
    compared = [check["passed"] for check in checks if check["name"] == "slurm_agrees"]
    assert compared == [True] * len(rows)
    # The rows; data set, calibration (of a node, of the links of two) and idle power; tables and verdict; four fits.
    assert campaign.said().count("has been submitted with SLURM jobid") == len(rows) + 4 + 2 + 4
    known = read_json(checkout.root / "results/cluster/node/calibration.json")
    between = [one for one in known["quantities"] if one["nodes"] == 2]
    assert len(between) == 6 and all(one["value"] > 0 and one["size"] == 2 for one in between)
    # One more row is one more job, and what is there already stays.
    checkout.campaign["grid"]["rows"].append({"layers": 4})
    checkout.save()
    before = set(checkout.root.glob("results/cluster/runs/*/run.json"))
    stamps = {path: path.stat().st_mtime_ns for path in before}
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(200) == 0, campaign.said()
    assert campaign.said().count("has been submitted with SLURM jobid") == 1
    assert len(set(checkout.root.glob("results/cluster/runs/*/run.json")) - before) == 1
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


@pytest.mark.long
def test_status_beside_a_campaign_says_what_runs_and_what_waits(slurm, tmp_path):
    rows = [{"layers": layers, "gpus_per_node": 4} for layers in range(1, 7)]
    checkout = make_checkout(tmp_path / "checkout", 2.0, *rows)
    path = {"PATH": f"{slurm.state}/bin:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "jouleline.commands.main", "status", "cluster"]
    seen = {}
    with start(slurm, checkout, "measurements") as campaign:
        while campaign.process.poll() is None:
            done = subprocess.run(
                command, cwd=checkout.root, env=os.environ | path, capture_output=True, text=True
            )
            seen[done.stdout] = None
        assert campaign.wait(0) == 0, campaign.said()
    said = "\n".join(seen)
    assert re.search(r"^  running  bert-L\d\S* +step [1-9]", said, re.M), said
    assert re.search(r"^  queued   bert-L\d\S* +(Resources|Priority|None)", said, re.M), said
    assert "6 of 6 rows are measured (6 ok)" in list(seen)[-1], said


@pytest.mark.long
def test_a_report_of_a_part_is_made_beside_the_campaign(slurm, tmp_path):
    """The calibrations come before the rows. The report measures nothing, and nothing is measured twice."""
    rows = [{"layers": layers, "gpus_per_node": 4} for layers in range(1, 7)]
    checkout = make_checkout(tmp_path / "checkout", 20, *rows)
    results = checkout.root / "results/cluster"
    with start(slurm, checkout, "--jobs", "2") as campaign:
        campaign.until(lambda: runs_of(checkout), "a finished run", 300)
        assert (results / "node/device.json").exists() and (results / "node/idle.json").exists()
        with start(slurm, checkout, "report", "--config", "partial=true") as part:
            assert part.wait(300) == 0, part.said()
        assert campaign.process.poll() is None and len(runs_of(checkout)) < len(rows)
        assert (results / "report.html").exists()
        assert campaign.wait(500) == 0, campaign.said()
    assert len(read_table(RUNS, results / "tables/runs.parquet")) == len(rows)
    jobs = jobs_of(slurm, checkout)
    assert len(jobs) == len(rows) and all(len(ids) == 1 for ids in jobs.values())
    assert "measure_run" not in part.said() and "calibrate_node" not in part.said()


@pytest.mark.long
def test_links_between_two_nodes_are_calibrated_by_a_job_of_two(slurm, tmp_path):
    rows = [{"layers": 1}, {"layers": 1, "nodes": 2, "gpus_per_node": 2, "zero_stage": 1}]
    checkout = make_checkout(tmp_path / "checkout", 0.5, *rows, calibration_s=3)
    target = "results/cluster/node/calibration.json"
    with start(slurm, checkout, target) as campaign:
        assert campaign.wait(200) == 0, campaign.said()
    links = read_json(checkout.root / "results/cluster/node/links-N2x2.json")
    assert links["nodes"] == 2 and len(set(links["hosts"])) == 2
    spans = {(one["nodes"], one["size"]) for one in links["quantities"] if one["value"] > 0}
    assert spans == {(2, 4.0)}
    known = read_json(checkout.root / target)
    between = [one for one in known["quantities"] if one["nodes"] == 2]
    assert sorted(between, key=str) == sorted(links["quantities"], key=str)
