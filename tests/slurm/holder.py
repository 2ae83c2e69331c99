"""PID 1 of the test cluster: brings loopback up, reaps, and turns each node's watts into a power counter.

Runs inside the cluster's own network, PID, mount and host-name namespaces; when it dies the kernel ends every
process of the cluster. Usage: holder.py STATE_FOLDER
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8913, 0x8914, 0x8916, 0x1
DOCUMENTATION_ADDRESS = "192.0.2.1"


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(handle, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
        # getaddrinfo with AI_ADDRCONFIG finds nothing, not even 127.0.0.1, on a host with 127.x addresses alone
        address = struct.pack(
            "16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(DOCUMENTATION_ADDRESS)
        )
        fcntl.ioctl(handle, SIOCSIFADDR, address)


def advance(node: Path, total_j: dict[Path, float], dt_s: float) -> None:
    """Add watts x dt to a node's energy file, in the form of a Cray EX node: `<J> J <us> us`."""
    try:
        power_w = float((node / "watts").read_text())
    except (OSError, ValueError):
        return
    total_j[node] = total_j.get(node, 1e6) + power_w * dt_s
    for name, value, unit in (("energy", total_j[node], "J"), ("power", power_w, "W")):
        fresh = node / f"{name}.new"
        fresh.write_text(f"{int(value)} {unit} {time.time_ns() // 1000} us\n")
        os.replace(fresh, node / name)


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(state: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    bring_loopback_up()
    Path("/proc/sys/kernel/hostname").write_text("ctl")
    subprocess.run(["mount", "--bind", str(state / "etc/hosts"), "/etc/hosts"], check=True)
    (state / "run/holder.ready").touch()
    total_j: dict[Path, float] = {}
    last = time.monotonic()
    while True:
        now = time.monotonic()
        for node in (state / "power").glob("*"):
            advance(node, total_j, now - last)
        last = now
        reap()
        time.sleep(0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
