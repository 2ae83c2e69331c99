"""How the agents of a job meet: by files in the run's shared folder, so no port must be agreed on before.

Node 0 listens on a port that the kernel chooses. It keeps the socket open until rank 0 takes it over, so nobody can
take the port in between. Every agent writes a hello with a random word. Node 0 answers with its addresses and the
words. Each agent tries the connection and answers with node 0's word. Files of an earlier attempt have other words and
are ignored. Agents meet by address, because only the host itself may know its name.

An agent that cannot start comes to the meeting too, to say so. Else the others would wait for it.
"""

import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json, write_json
from jouleline.measure.node import network
from jouleline.measure.node.files import hello_file, meeting_file

POLL_S = 0.1
# Once one node has failed: how long node 0 waits for the nodes that have not come yet, which would wait for it.
LATECOMERS_S = 60.0
# How long a node tries node 0's addresses. Node 0 may be held up by the shared folder.
REACH_S = 20.0


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet. `listen_fd` is open on node 0 only. `peer` is the address of another node, if any."""

    address: str
    port: int
    listen_fd: int | None = None
    peer: str | None = None


def meet(
    raw: Path, node: int, nodes: int, address: str | None, timeout_s: float, failure: str | None = None
) -> Meeting:
    """Wait for all agents, and agree on address and port.

    The others reach this node at `address` (None: at any of its addresses). `failure` says why this node cannot take
    part. Raises UserError that names the nodes that did not come within `timeout_s`, or came with a failure.
    """
    hello = {"word": secrets.token_hex(8), "host": socket.gethostname(), "failure": failure}
    deadline = time.monotonic() + timeout_s
    if node > 0:
        return _join(raw, node, hello, deadline)
    listener = network.listen(everywhere=nodes > 1)
    port = listener.getsockname()[1]
    call = {**hello, "addresses": [address] if address else network.own_addresses(), "port": port}
    try:
        peer = _gather(raw, nodes, call, deadline, listener)
    except BaseException:
        listener.close()
        raise
    return Meeting(network.LOOPBACK, port, listener.detach(), peer)


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except UserError:
        return {}


def _gather(raw: Path, nodes: int, call: dict, deadline: float, listener: socket.socket) -> str | None:
    """Answer every hello until all have answered back. Returns the address of another node, if any."""
    said: dict[str, Any] = {}
    peer = None
    while True:
        hellos = {node: _read(hello_file(raw, node)) for node in range(1, nodes)}
        # Only a node that has answered certainly belongs to this attempt.
        come = {0: call} | {node: one for node, one in hellos.items() if one.get("answer") == call["word"]}
        failures = {str(node): one["failure"] for node, one in come.items() if one["failure"]}
        words = {str(node): one["word"] for node, one in hellos.items() if "word" in one}
        news = {"words": words, "failures": failures, "complete": len(come) == nodes}
        if news != said:
            write_json(meeting_file(raw), {**call, **news})
            said = news
            if failures:
                deadline = min(deadline, time.monotonic() + LATECOMERS_S)
        if news["complete"]:
            _refuse(failures)
            return peer
        if time.monotonic() > deadline:
            _refuse(failures)
            absent = ", ".join(str(node) for node in hellos if node not in come)
            raise UserError(f"node {absent} did not come to {raw}; see the logs of its agent", 1)
        caller = network.answer_one(listener, list(words.values()), call["word"])
        peer = caller or peer
        if caller is None:
            time.sleep(POLL_S)


def _join(raw: Path, node: int, hello: dict, deadline: float) -> Meeting:
    """Say hello, try the connection, answer node 0's word, and wait until all have done so."""
    write_json(hello_file(raw, node), hello)
    address = None
    while True:
        found = _read(meeting_file(raw))
        if found.get("words", {}).get(str(node)) == hello["word"]:
            if (
                hello.get("answer") != found["word"]
            ):  # also where node 0 came again, to say that the job must end
                address = _reach(found, hello)
                hello["answer"] = found["word"]
                write_json(hello_file(raw, node), hello)
            _refuse(found["failures"])
            if found["complete"]:
                return Meeting(address or "", found["port"], peer=address)
        if time.monotonic() > deadline:
            raise UserError(f"node 0 did not come to {raw}; see the log of its agent", 1)
        time.sleep(POLL_S)


def _reach(found: Mapping[str, Any], hello: dict) -> str | None:
    """The address where node 0 answers. If it answers nowhere, this becomes the node's failure."""
    if found["failures"] or hello["failure"]:
        return None
    until, address = time.monotonic() + REACH_S, None
    while address is None and time.monotonic() < until:
        address = network.reach(found["addresses"], found["port"], hello["word"], found["word"])
        if address is None:
            time.sleep(POLL_S)
    if address is None:
        tried = ", ".join(one for one in found["addresses"] if one != network.LOOPBACK) or "none is known"
        hello["failure"] = (
            f"host {hello['host']} reaches host {found['host']} at none of its addresses ({tried}), port "
            f"{found['port']}; open the ports between them, or give node 0 an --address that the others reach"
        )
    return address


def _refuse(failures: Mapping[str, str]) -> None:
    if failures:
        raise UserError("; ".join(f"node {node} cannot start: {said}" for node, said in failures.items()), 1)
