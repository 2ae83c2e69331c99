"""The networks of a node: its addresses, the interface that reaches a peer, and the one that libraries use."""

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from jouleline.errors import UserError

# gloo and NCCL learn their interface from these.
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
# What leads them away from the interface: another transport, address family or meeting point. One node needs none.
ELSEWHERE = ("GLOO_DEVICE_TRANSPORT", "NCCL_COMM_ID", "NCCL_NET", "NCCL_SOCKET_FAMILY")
LOOPBACK = "127.0.0.1"
_SIOCGIFADDR = 0x8915
_CONNECT_S = 3.0


def interfaces() -> Iterator[tuple[str, str]]:
    """(name, address) of every interface with an address: IPv4, then global IPv6."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                found = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                yield name, socket.inet_ntoa(found[20:24])
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text(encoding="utf-8", errors="replace").splitlines():
            digits, _, _, scope, _, name = line.split()
            if scope == "00":
                yield name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))


def own_addresses() -> list[str]:
    """Addresses by which other nodes may reach this one, the likeliest first: that of its host name, then all others.

    The loopback comes last. Agents on one host may have nothing else, and the answered word proves who answers.
    """
    named: list[str] = []
    with contextlib.suppress(OSError):
        named = [
            info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
        ]
    found = [*named, *(address for _, address in interfaces())]
    outside = [one for one in dict.fromkeys(found) if not one.startswith(("127.", "::1", "fe80"))]
    return [*outside, LOOPBACK]


def interface_to(address: str) -> str | None:
    """The network interface through which this host reaches `address`; None where unknown."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # a datagram socket sends nothing here
            own = probe.getsockname()[0]
    except OSError:
        return None
    return next((name for name, found in interfaces() if found == own), None)


def use_interface(peer: str | None) -> None:
    """Let gloo and NCCL use the interface that reaches `peer`. None: there is one node, which talks to itself.

    By themselves they take the interface of the host's own name, which is often the loopback, or any that is up. The
    user's own setting counts only between nodes. Raises UserError where it names no interface of this node.
    """
    name = interface_to(peer or LOOPBACK)
    if peer is None:
        for variable in (*VARIABLES, *ELSEWHERE):
            os.environ.pop(variable, None)
    for variable in VARIABLES:
        if variable in os.environ:
            _require_interface(variable, os.environ[variable])
        if name:
            os.environ.setdefault(variable, name)


def _require_interface(variable: str, value: str) -> None:
    there = [name for _, name in socket.if_nameindex()]
    # For NCCL, ^name means any other interface, =name exactly this one, and a plain name its beginning.
    asked = [one.lstrip("=") for one in value.split(",")]
    if not value.startswith("^") and not any(name.startswith(one) for name in there for one in asked):
        raise UserError(
            f"{variable}={value} is set and this node has no such interface, it has {', '.join(there)}; unset it"
        )


def reach(addresses: Sequence[str], port: int, hello: str, answer: str) -> str | None:
    """The first of `addresses` that answers `hello` with `answer` at `port`; None where none does.

    The answer distinguishes the right node from another one with the same private address.
    """
    for address in addresses:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), _CONNECT_S) as connection,
        ):
            connection.sendall(hello.encode())
            if connection.recv(64) == answer.encode():
                return address
    return None


def listen(everywhere: bool) -> socket.socket:
    """A listening socket on a free port, on all interfaces or on the loopback."""
    if not everywhere:
        return socket.create_server((LOOPBACK, 0), backlog=2048)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=2048)
    return socket.create_server(("", 0), backlog=2048)


def answer_one(listener: socket.socket, known: Sequence[str], answer: str) -> str | None:
    """Answer a caller at `listener` with one of the `known` words.

    Returns the caller's address; None without a caller.
    """
    listener.settimeout(0)
    try:
        connection, caller = listener.accept()
        with connection:
            connection.settimeout(1.0)
            if connection.recv(64).decode(errors="replace") not in known:
                return None
            connection.sendall(answer.encode())
    except OSError:
        return None
    finally:
        listener.settimeout(None)
    return caller[0].removeprefix("::ffff:")
