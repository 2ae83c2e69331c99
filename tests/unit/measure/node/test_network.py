"""Nodes meet by address, and libraries use the interface that reaches the other node."""

import json
import os
import socket
import threading

import pytest
from jouleline.errors import UserError
from jouleline.measure.node import network, rendezvous
from jouleline.measure.node.environment import speed_variables
from jouleline.measure.node.rendezvous import meet


def test_the_interface_to_a_peer_is_the_one_that_reaches_it():
    assert network.interface_to("127.0.0.1") == "lo"
    assert network.interface_to("no-such-host.invalid") is None


def test_own_addresses_are_of_interfaces_and_the_loopback_last():
    there = [address for _, address in network.interfaces()]
    assert "127.0.0.1" in there
    *outside, last = network.own_addresses()
    assert last == "127.0.0.1" and not [one for one in outside if one.startswith("127.") or one == "::1"]


@pytest.mark.parametrize("variable", [*network.VARIABLES, *network.ELSEWHERE])
def test_one_node_talks_to_itself_whatever_is_left_over(monkeypatch, variable):
    """gloo would fail for a transport that it was not built with, and NCCL would wait for the host of another job."""
    for name in network.VARIABLES:
        monkeypatch.setenv(name, "lo")
    monkeypatch.setenv(variable, "ib0")
    network.use_interface(None)
    assert os.environ.get(variable) == ("lo" if variable in network.VARIABLES else None)


@pytest.mark.parametrize("variable", network.ELSEWHERE)
def test_between_nodes_the_user_s_network_stays(monkeypatch, variable):
    for name in network.VARIABLES:
        monkeypatch.setenv(name, "lo")
    monkeypatch.setenv(variable, "the user's")
    network.use_interface("127.0.0.1")
    assert os.environ[variable] == "the user's"


@pytest.mark.parametrize("variable", network.VARIABLES)
def test_between_nodes_the_user_s_interface_counts_and_must_be_there(monkeypatch, variable):
    for name in network.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "^docker0")
    network.use_interface("127.0.0.1")
    assert sorted(os.environ[name] for name in network.VARIABLES) == ["^docker0", "lo"]
    assert set(network.VARIABLES) <= set(speed_variables())  # numbers depend on it, so run.json has it
    monkeypatch.setenv(variable, "ib0")
    with pytest.raises(UserError, match=f"{variable}=ib0 is set and this node has no such interface"):
        network.use_interface("127.0.0.1")


def both(raw, addresses, timeout_s=20):
    """The result of two agents' meeting: a Meeting each, or the error."""
    found = {}

    def come(node):
        try:
            found[node] = meet(raw, node, 2, addresses[node], timeout_s)
        except UserError as error:
            found[node] = error

    threads = [threading.Thread(target=come, args=(node,)) for node in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_nodes_meet_at_the_address_that_answers(tmp_path, monkeypatch, address):
    # The first belongs to nobody, the second to another program. Neither answers with node 0's word.
    with socket.create_server(("127.0.0.2", 0)):
        monkeypatch.setattr(network, "own_addresses", lambda: ["192.0.2.1", "no-such-host", address])
        monkeypatch.setattr(network, "_CONNECT_S", 0.3)
        found = both(tmp_path, (None, None))
    assert found[1].address == address and found[1].port == found[0].port
    assert found[0].peer in ("127.0.0.1", "::1")
    os.close(found[0].listen_fd)


def test_a_node_that_cannot_be_reached_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "_CONNECT_S", 0.3)
    monkeypatch.setattr(rendezvous, "REACH_S", 1.0)
    found = both(tmp_path, ("no-such-host.invalid", None))
    host = socket.gethostname()
    for node in (0, 1):
        said = str(found[node])
        assert said.startswith(
            f"node 1 cannot start: host {host} reaches host {host} at none of its addresses"
        )
        assert "(no-such-host.invalid)" in said and "--address" in said
    assert json.loads((tmp_path / "meeting.json").read_text())["complete"]
