"""How the agents of a job meet: files in the run's shared folder, so that no port has to be agreed on before.

Node 0 listens on a port of the kernel's choice and keeps the socket open until rank 0 takes it over, so nobody can
take the port in between. Every agent writes a hello with a random word; node 0 answers with the address and the
words; each agent answers to node 0's word. Files of an earlier attempt carry other words and are passed over.

An agent that cannot start comes to the meeting all the same, to say so: otherwise the others would wait for it.
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
from jouleline.measure.node.files import hello_file, meeting_file

POLL_S = 0.1
# How long node 0 waits, once one has failed, for those that are still to come and would wait for it.
LATECOMERS_S = 60.0


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet. `listen_fd` is open on node 0 only; `peer` is the address of another node, if any."""

    address: str
    port: int
    listen_fd: int | None = None
    peer: str | None = None


def meet(
    raw: Path, node: int, nodes: int, address: str | None, timeout_s: float, failure: str | None = None
) -> Meeting:
    """Wait for all agents and agree on address and port; `address` is how the others reach this node (None: its
    host name). `failure` says why this node cannot take part.

    Raises UserError naming the nodes that did not come within `timeout_s`, or those that came with a failure.
    """
    hello = {"word": secrets.token_hex(8), "address": address or _own_address(nodes), "failure": failure}
    deadline = time.monotonic() + timeout_s
    if node > 0:
        return _join(raw, node, hello, deadline)
    # A host's own name often means 127.0.1.1 to itself, so several nodes listen on every interface.
    listener = socket.create_server(("" if nodes > 1 else hello["address"], 0), backlog=2048)
    port = listener.getsockname()[1]
    try:
        peer = _gather(raw, nodes, {**hello, "port": port}, deadline)
    except BaseException:
        listener.close()
        raise
    return Meeting(hello["address"], port, listener.detach(), peer)


def _own_address(nodes: int) -> str:
    return socket.gethostname() if nodes > 1 else "127.0.0.1"


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except UserError:
        return {}


def _gather(raw: Path, nodes: int, call: dict, deadline: float) -> str | None:
    """Answer every hello until all have answered back; the address of node 1."""
    said: dict[str, Any] = {}
    while True:
        hellos = {node: _read(hello_file(raw, node)) for node in range(1, nodes)}
        # Only who has answered is sure to be of this attempt.
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
            return hellos[1]["address"] if hellos else None
        if time.monotonic() > deadline:
            _refuse(failures)
            absent = ", ".join(str(node) for node in hellos if node not in come)
            raise UserError(f"node {absent} did not come to {raw}; see the logs of its agent", 1)
        time.sleep(POLL_S)


def _join(raw: Path, node: int, hello: dict, deadline: float) -> Meeting:
    """Say hello, answer node 0's word, and wait until all have done so."""
    write_json(hello_file(raw, node), hello)
    while True:
        found = _read(meeting_file(raw))
        if found.get("words", {}).get(str(node)) == hello["word"]:
            if hello.get("answer") != found["word"]:  # also where node 0 came again, to say that it must end
                hello["answer"] = found["word"]
                write_json(hello_file(raw, node), hello)
            _refuse(found["failures"])
            if found["complete"]:
                return Meeting(found["address"], found["port"], peer=found["address"])
        if time.monotonic() > deadline:
            raise UserError(f"node 0 did not come to {raw}; see the log of its agent", 1)
        time.sleep(POLL_S)


def _refuse(failures: Mapping[str, str]) -> None:
    if failures:
        raise UserError("; ".join(f"node {node} cannot start: {said}" for node, said in failures.items()), 1)
