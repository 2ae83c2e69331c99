"""Calibration of the links between nodes: an agent on each, and what the calibration of a node makes of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jouleline.model.machine import Machines
from jouleline.schemas import read_table
from jouleline.schemas.calibration import CALIBRATION
from paths import SCRIPTS

PROTOCOL = {"estimate_w_per_core": 20.0, "meter": "estimate", "device": "cpu"}
LINKS = {
    f"link_{name}_{kind}"
    for name in ("bandwidth", "latency")
    for kind in ("all_reduce", "all_gather", "reduce_scatter")
}


def start(out: Path, node: int | None, *more: str, devices=1, address="127.0.0.1", prefix=()):
    command = [*prefix, sys.executable, str(SCRIPTS / "calibrate_links.py"), "--out", str(out)]
    command += ["--protocol", json.dumps(PROTOCOL), "--of-nodes", "2", "--devices", str(devices)]
    command += ["--budget-s", "5", "--address", address, *more]
    command += [] if node is None else ["--node-rank", str(node)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)


def calibrate(out: Path, devices=1, addresses=("127.0.0.1", "127.0.0.1"), prefixes=((), ())) -> dict:
    agents = [
        start(out, node, devices=devices, address=addresses[node], prefix=prefixes[node]) for node in (1, 0)
    ]
    for agent in agents:
        output, _ = agent.communicate(timeout=120)
        assert agent.returncode == 0, output
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return json.loads(out.read_text())


def rates(found: dict) -> dict[str, float]:
    return {entry["quantity"]: entry["value"] for entry in found["quantities"]}


def test_links_between_nodes_become_part_of_the_calibration(tmp_path):
    out = tmp_path / "links" / "N2x2.json"
    found = calibrate(out, devices=2)
    assert (found["nodes"], found["devices_per_node"], len(found["hosts"])) == (2, 2, 2)
    assert set(rates(found)) == LINKS
    for entry in found["quantities"]:
        assert entry["value"] > 0 and entry["u_rel"] >= 0 and entry["n"] >= 10
        assert (entry["nodes"], entry["size"]) == (2, 4.0)
    stranger = (
        tmp_path / "stranger.json"
    )  # the same of nodes of another kind: of this one's links it says nothing
    stranger.write_text(
        json.dumps(found | {"device": "Abacus 3", "nodes": 3}).replace('"nodes": 2', '"nodes": 3')
    )
    node, calibration, table = (tmp_path / name for name in ("node.json", "all.json", "all.parquet"))
    command = [sys.executable, SCRIPTS / "calibrate_node.py", "--protocol", json.dumps(PROTOCOL)]
    subprocess.run([*command, "--out", node, "--budget-s", "3"], check=True, timeout=120)
    command = [sys.executable, SCRIPTS / "collect_calibration.py", "--node", node, "--links", stranger, out]
    subprocess.run([*command, "--out", calibration, "--table", table], check=True, timeout=60)
    known = json.loads(calibration.read_text())
    machines = Machines(known)
    for name in LINKS:
        assert machines.get(known["device"], name, nodes=2) == rates(found)[name]
        assert machines.get(known["device"], name, nodes=3) is None
        assert machines.get(known["device"], name, nodes=4) is None
    inside = [one for one in known["quantities"] if one["quantity"] in LINKS and one["nodes"] == 1]
    assert len(inside) == 6
    for one in inside:  # what is measured between nodes does not touch what holds within one
        assert machines.get(known["device"], one["quantity"]) == one["value"]
    rows = read_table(CALIBRATION, table)
    assert sorted(row["nodes"] for row in rows if row["quantity"] in LINKS) == [1] * 6 + [2] * 6 + [3] * 6
    assert all("Abacus 3" in row["method"] for row in rows if row["nodes"] == 3)


def test_the_rate_is_that_of_the_cable_between_the_nodes(tmp_path, two_networks):
    addresses, prefixes = two_networks
    if not shutil.which("tc"):
        pytest.skip("tc (iproute2) is needed to slow a cable down")
    free = rates(calibrate(tmp_path / "free" / "N2x1.json", 1, addresses, prefixes))
    limit = ["tc", "qdisc", "add", "dev", "jlcable0", "root", "tbf", "rate", "400mbit", "burst", "256kb"]
    subprocess.run([*prefixes[0], *limit, "latency", "100ms"], check=True)
    cable = 400e6 / 8
    slow = rates(calibrate(tmp_path / "slow" / "N2x1.json", 1, addresses, prefixes))
    for kind in ("all_reduce", "all_gather"):
        name = f"link_bandwidth_{kind}"
        # Headers take a few per cent. A rank that had to wait for a processor finds the bucket of 256 KiB full again.
        assert 0.8 * cable < slow[name] < 1.5 * cable
        assert free[name] > 2 * slow[name]
    # gloo reduces everything and scatters nothing: twice what a ring would send.
    assert 0.4 * cable < slow["link_bandwidth_reduce_scatter"] < 1.5 * cable


def test_what_cannot_be_is_said_in_one_line(tmp_path):
    out = tmp_path / "links.json"
    for node, more, said in (
        (None, (), "start this program under srun"),
        (0, ("--nodes", "3"), "3 were given"),
    ):
        agent = start(out, node, *more)
        output, _ = agent.communicate(timeout=60)
        assert agent.returncode == 2 and said in output and output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_node_told_to_end_ends_the_other(tmp_path):
    out = tmp_path / "links.json"
    agents = [start(out, node) for node in (0, 1)]
    while not (tmp_path / "links.raw" / "node-1").exists():
        assert agents[1].poll() is None, agents[1].communicate()
        time.sleep(0.01)
    agents[1].send_signal(signal.SIGTERM)
    outputs = [agent.communicate(timeout=60)[0] for agent in agents]
    assert agents[1].returncode == 128 + signal.SIGTERM and agents[0].returncode == 1
    assert "SIGTERM came before" in outputs[0] and not out.exists()
