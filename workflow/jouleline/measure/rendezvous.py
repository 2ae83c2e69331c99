"""How the agents of a job meet: files in the run's shared folder, so that no port has to be agreed on before.

Node 0 listens on a port of the kernel's choice and keeps the socket open until rank 0 takes it over, so nobody can
take the port in between. Every agent writes a hello with a random word; node 0 answers with the address and the
words; each agent answers to node 0's word. Files of an earlier attempt carry other words and are passed over.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import read_json, write_json

POLL_S = 0.1


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet. `listen_fd` is open on node 0 only."""

    address: str
    port: int
    listen_fd: int | None


def meet(
    raw: Path, node: int, nodes: int, address: str, timeout_s: float, watch: Callable[[], None]
) -> Meeting:
    """Wait for all agents and agree on address and port. `watch` is called while waiting and may raise.

    Raises UserError naming the nodes that did not come within `timeout_s`.
    """
    word = secrets.token_hex(8)
    deadline = time.monotonic() + timeout_s
    if node > 0:
        return _join(raw, node, word, deadline, watch)
    listener = socket.create_server((address, 0), family=_family(address), backlog=2048)
    meeting = Meeting(address, listener.getsockname()[1], listener.detach())
    os.set_inheritable(meeting.listen_fd, True)
    if nodes > 1:
        _gather(raw, nodes, word, meeting, deadline, watch)
    return meeting


def _family(address: str) -> int:
    return socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][0]


def _hello(raw: Path, node: int) -> Path:
    return raw / f"hello-{node}.json"


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except UserError:
        return {}


def _gather(
    raw: Path, nodes: int, word: str, meeting: Meeting, deadline: float, watch: Callable[[], None]
) -> None:
    answered: dict[str, str] = {}
    while True:
        watch()
        hellos = {node: _read(_hello(raw, node)) for node in range(1, nodes)}
        if all(hello.get("answer") == word for hello in hellos.values()):
            return
        words = {str(node): hello["word"] for node, hello in hellos.items() if "word" in hello}
        if words != answered:
            write_json(
                raw / "meeting.json",
                {"word": word, "words": words, "address": meeting.address, "port": meeting.port},
            )
            answered = words
        if time.monotonic() > deadline:
            absent = [str(node) for node, hello in hellos.items() if hello.get("answer") != word]
            raise UserError(f"node {', '.join(absent)} did not come to {raw}; see the logs of its agent", 1)
        time.sleep(POLL_S)


def _join(raw: Path, node: int, word: str, deadline: float, watch: Callable[[], None]) -> Meeting:
    write_json(_hello(raw, node), {"word": word, "host": socket.gethostname()})
    while True:
        watch()
        found = _read(raw / "meeting.json")
        if found.get("words", {}).get(str(node)) == word:
            write_json(_hello(raw, node), {"word": word, "answer": found["word"]})
            return Meeting(found["address"], found["port"], None)
        if time.monotonic() > deadline:
            raise UserError(f"node 0 did not come to {raw}; see the log of its agent", 1)
        time.sleep(POLL_S)
