"""The pipeline itself on a real Slurm: `snakemake --profile slurm`, single-node and two-node rows, real ranks."""

import pytest
from jouleline.schemas import read_table
from jouleline.schemas.runs import RUNS

from tests.workflow.slurm_runs import jobs_of, make_checkout, runs_of, shape_of, start

pytestmark = pytest.mark.slurm


def test_a_campaign_on_three_nodes(slurm, tmp_path):
    """A row of one node and a row of two, measured side by side, each by one agent per node; no row in two jobs."""
    rows = [{"layers": 1, "gpus_per_node": 2, "zero_stage": 1}, {"layers": 2, "nodes": 2, "zero_stage": 1}]
    checkout = make_checkout(tmp_path / "checkout", 0.5, *rows)
    with start(slurm, checkout, "measurements") as campaign:
        assert campaign.wait(240) == 0, campaign.said()
    runs = runs_of(checkout)
    assert {name: run["status"] for name, run in runs.items()} == {"L1-N1x2": "ok", "L2-N2x1": "ok"}
    assert [run["training"]["world_size"] for run in runs.values()] == [2, 2]
    hosts = {node["host"] for run in runs.values() for node in run["nodes"]}
    assert len(hosts) == 3 and hosts < set(slurm.settings.node_names)
    jobs = jobs_of(slurm, checkout)
    assert {name: len(ids) for name, ids in jobs.items()} == {"L1-N1x2": 1, "L2-N2x1": 1}
    shapes = {name: shape_of(slurm, ids[0]) for name, ids in jobs.items()}
    asked = {name: (s["NumNodes"], s["NumTasks"], s["TresPerNode"]) for name, s in shapes.items()}
    assert asked == {"L1-N1x2": ("1", "1", "gres:gpu:2"), "L2-N2x1": ("2", "2", "gres:gpu:1")}


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
    # The rows; data set, calibration and idle power; tables and verdict; four fits.
    assert campaign.said().count("has been submitted with SLURM jobid") == len(rows) + 3 + 2 + 4

    # What Slurm measured is finished for every executor, and a change reruns what it touches and nothing else.
    for profile in ("slurm", "profiles/local"):
        assert checkout.planned("--profile", profile) == {}
    more = [
        "--profile",
        "slurm",
        "--set-resources",
        "measure_run:mem_mb=9999",
        "measure_run:slurm_partition=other",
    ]
    assert checkout.planned(*more) == {}
    checkout.campaign["grid"]["rows"].append({"layers": 4})
    checkout.save()
    planned = checkout.planned("--profile", "slurm")
    assert (
        len(planned["measure_run"]) == 3 and "measure_run_multinode" not in planned
    )  # three files of one run
    assert {"integrate_energy", "collect_runs", "fit_model", "render_report"} <= set(planned)
