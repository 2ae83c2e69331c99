"""How the agents of a job meet: files in the run's shared folder, so that no port has to be agreed on before.

Node 0 listens on a port of the kernel's choice and keeps the socket open until rank 0 takes it over, so nobody can
take the port in between. Every agent writes a hello with a random word; node 0 answers with the address and the
words; each agent answers to node 0's word. Files of an earlier attempt carry other words and are passed over.
"""

import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import read_json, write_json

POLL_S = 0.1


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet. `listen_fd` is open on node 0 only; `peer` is the address of another node, if any."""

    address: str
    port: int
    listen_fd: int | None = None
    peer: str | None = None


def meet(raw: Path, node: int, nodes: int, address: str | None, timeout_s: float) -> Meeting:
    """Wait for all agents and agree on address and port; `address` is how the others reach this node (None: its
    host name).

    Raises UserError naming the nodes that did not come within `timeout_s`.
    """
    word = secrets.token_hex(8)
    deadline = time.monotonic() + timeout_s
    address = address or (socket.gethostname() if nodes > 1 else "127.0.0.1")
    if node > 0:
        return _join(raw, node, word, address, deadline)
    # A host's own name often means 127.0.1.1 to itself, so several nodes listen on every interface.
    listener = socket.create_server(("" if nodes > 1 else address, 0), backlog=2048)
    port = listener.getsockname()[1]
    peer = _gather(raw, nodes, {"word": word, "address": address, "port": port}, deadline)
    return Meeting(address, port, listener.detach(), peer)


def _hello(raw: Path, node: int) -> Path:
    return raw / f"hello-{node}.json"


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except UserError:
        return {}


def _gather(raw: Path, nodes: int, call: dict, deadline: float) -> str | None:
    """Answer every hello until all have answered back; the address of node 1."""
    answered: dict[str, str] = {}
    while True:
        hellos = {node: _read(_hello(raw, node)) for node in range(1, nodes)}
        if all(hello.get("answer") == call["word"] for hello in hellos.values()):
            return hellos[1]["address"] if hellos else None
        words = {str(node): hello["word"] for node, hello in hellos.items() if "word" in hello}
        if words != answered:
            write_json(raw / "meeting.json", {**call, "words": words})
            answered = words
        if time.monotonic() > deadline:
            absent = [str(node) for node, hello in hellos.items() if hello.get("answer") != call["word"]]
            raise UserError(f"node {', '.join(absent)} did not come to {raw}; see the logs of its agent", 1)
        time.sleep(POLL_S)


def _join(raw: Path, node: int, word: str, address: str, deadline: float) -> Meeting:
    hello = {"word": word, "address": address}
    write_json(_hello(raw, node), hello)
    while True:
        found = _read(raw / "meeting.json")
        if found.get("words", {}).get(str(node)) == word:
            write_json(_hello(raw, node), {**hello, "answer": found["word"]})
            return Meeting(found["address"], found["port"], peer=found["address"])
        if time.monotonic() > deadline:
            raise UserError(f"node 0 did not come to {raw}; see the log of its agent", 1)
        time.sleep(POLL_S)
