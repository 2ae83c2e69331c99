"""One fine-tuning on two nodes: two agents that meet in the run's folder and train together over gloo."""

import json
import os
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest
from agent_process import LONG, SHORT, Agent, failed, gone

TWO = {"nodes": 2, "gpus_per_node": 1, "zero_stage": 3}


def two_agents(
    out, dataset, row, protocol=SHORT, addresses=("127.0.0.1", "127.0.0.1"), networks=(None, None)
):
    agents = []
    for node in (1, 0):  # the last to come is the one that answers
        extra = ["--node-rank", str(node), "--nodes", "2"]
        extra += ["--address", addresses[node]] if addresses[node] else []
        agents.insert(0, Agent(out, dataset, row, protocol, extra, network=networks[node]))
    return agents


def check_two_node_run(out, agents, ranks_per_node):
    for code, output in [agent.wait() for agent in agents]:
        assert code == 0, output
    assert sorted(path.name for path in out.iterdir()) == ["markers.parquet", "run.json", "samples.parquet"]
    run = json.loads((out / "run.json").read_text())
    assert run["training"]["world_size"] == 2 * ranks_per_node
    assert [node["exit_codes"] for node in run["nodes"]] == [[0] * ranks_per_node] * 2
    ranks = [[rank["rank"] for rank in node["ranks"]] for node in run["nodes"]]
    assert [rank for node in ranks for rank in node] == list(range(2 * ranks_per_node))
    for node in (0, 1):
        assert run["nodes"][node]["meta"]["energy_source"] == "estimate"
        for name in ("samples", "markers"):
            assert node in pq.read_table(out / f"{name}.parquet", columns=["node"])["node"].to_pylist()
    return run


def test_two_nodes_train_as_one(tmp_path, dataset):
    row = {"nodes": 2, "gpus_per_node": 2, "tensor_parallel": 2, "zero_stage": 3}
    run = check_two_node_run(tmp_path, two_agents(tmp_path, dataset, row), 2)
    assert run["training"]["global_batch"] == 8


def test_a_dead_rank_on_one_node_ends_the_other(tmp_path, dataset):
    agents = two_agents(tmp_path, dataset, TWO, LONG)
    pids = [agent.training(node) for node, agent in enumerate(agents)]
    os.kill(pids[1]["ranks"][0], signal.SIGKILL)
    for code, output in [agent.wait(40) for agent in agents]:
        assert code == 1, output
    assert gone([pid for node in pids for pid in [*node["ranks"], *node["sidecar"]]], 1)
    record = failed(tmp_path)
    assert record["reason"] == "rank_killed" and "rank 1 was killed by signal 9" in record["detail"]


def test_a_node_that_does_not_come_is_named(tmp_path, dataset):
    extra = ["--node-rank", "0", "--nodes", "2"]
    protocol = {**SHORT, "startup_timeout_s": 8}
    code, output = Agent(tmp_path, dataset, TWO, protocol, extra).wait()
    assert code == 1 and "node 1 did not come" in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("bad", [pytest.param(0, marks=pytest.mark.long), 1])
def test_bad_input_on_one_node_ends_the_others_at_once(tmp_path, dataset, bad):
    datasets = [dataset, dataset]
    datasets[bad] = tmp_path / "none.parquet"
    extras = [["--node-rank", str(node), "--nodes", "2", "--address", "127.0.0.1"] for node in (0, 1)]
    agents = [Agent(tmp_path, datasets[node], TWO, SHORT, extras[node]) for node in (0, 1)]
    ended = [agent.wait(60) for agent in agents]  # startup_timeout_s is 600
    assert ended[bad][0] == 2 and "none.parquet; run the rule that makes it" in ended[bad][1]
    code, output = ended[1 - bad]
    assert code == 1 and output.startswith(f"error: node {bad} cannot start: ") and output.count("\n") == 1
    assert "none.parquet; run the rule that makes it" in output
    if bad == 1:  # what this attempt left does not mislead the next one
        check_two_node_run(tmp_path, two_agents(tmp_path, dataset, TWO), 1)


@pytest.mark.parametrize(
    ("stopped", "trace"),
    [(0, "meeting.json"), pytest.param(1, "hello-1.json", marks=pytest.mark.long), (1, "node-1")],
)
def test_a_node_told_to_end_before_the_ranks_have_met_ends_the_others(tmp_path, dataset, stopped, trace):
    """While it waits for the others in the meeting, and while it imports.

    The other one has its libraries, because a node that was told to end waits only 20 s for those that still import.
    """
    extras = [["--node-rank", str(node), "--nodes", "2", "--address", "127.0.0.1"] for node in (0, 1)]
    first = Agent(tmp_path, dataset, TWO, SHORT, extras[stopped], from_nothing=True)
    while not (tmp_path / "raw" / trace).exists():
        assert first.process.poll() is None, first.wait()
        time.sleep(0.01)
    other = Agent(tmp_path, dataset, TWO, SHORT, extras[1 - stopped])
    first.process.send_signal(signal.SIGTERM)
    code, output = first.wait(300)
    assert code == 128 + signal.SIGTERM and output.startswith("error: run t was stopped by SIGTERM")
    code, output = other.wait(300)  # startup_timeout_s is 600
    assert code == 1 and output.startswith(f"error: node {stopped} cannot start: SIGTERM came before")
    assert output.count("\n") == 1
    if stopped == 0:
        assert failed(tmp_path)["reason"] == "stopped"


@pytest.mark.parametrize("bad", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_sidecar_that_does_not_start_on_one_node_ends_the_other(tmp_path, dataset, bad):
    protocols = [SHORT, SHORT]
    protocols[bad] = {**SHORT, "meter": "nvml"}
    extras = [["--node-rank", str(node), "--nodes", "2", "--address", "127.0.0.1"] for node in (0, 1)]
    agents = [Agent(tmp_path, dataset, TWO, protocols[node], extras[node]) for node in (0, 1)]
    ended = [agent.wait(60) for agent in agents]
    assert ended[bad][0] != 0 and "no NVML" in ended[bad][1]
    code, output = ended[1 - bad]
    assert code == 1
    if bad == 1:
        assert "node 1: " in output and "no NVML" in output
        assert failed(tmp_path)["reason"] == "node_failed"


@pytest.mark.parametrize("family", [pytest.param("IPv4", marks=pytest.mark.long), "IPv6"])
def test_two_networks_train_as_one_without_a_name_that_both_know(tmp_path, dataset, two_networks, family):
    addresses, prefixes = two_networks
    for node in (0, 1) if family == "IPv6" else ():
        interface = f"jlcable{node}"
        address = ["ip", "address", "add", f"fd00:213::{node + 1}/64", "dev", interface, "nodad"]
        subprocess.run([*prefixes[node], *address], check=True)
        remove = ["ip", "address", "delete", f"{addresses[node]}/24", "dev", interface]
        subprocess.run([*prefixes[node], *remove], check=True)
    networks = [prefix[-1] for prefix in prefixes]
    agents = two_agents(tmp_path, dataset, TWO, SHORT, (None, None), networks)
    run = check_two_node_run(tmp_path, agents, 1)
    assert run["training"]["data_parallel"] == 2


def test_a_cable_that_is_cut_is_told_at_the_meeting(tmp_path, dataset, two_networks):
    _, prefixes = two_networks
    subprocess.run([*prefixes[1], "ip", "link", "set", "jlcable1", "down"], check=True)
    begin, networks = time.monotonic(), [prefix[-1] for prefix in prefixes]
    agents = two_agents(tmp_path, dataset, TWO, SHORT, (None, None), networks)
    for code, output in [agent.wait() for agent in agents]:
        assert code == 1 and "node 1 cannot start: host " in output, output
        assert "10.213.7.1" in output and "--address" in output and output.count("\n") == 1
    assert time.monotonic() - begin < 90  # startup_timeout_s is 600
