"""Whether the model hub can be reached.

This is asked once, because its client tries for minutes where packets vanish.
"""

import contextlib
import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies

_ENDPOINT = "https://huggingface.co"
_PORTS = {"http": 80, "https": 443}
_LIMIT_S = 10.0


def offline_unless_reachable() -> None:
    """Let the hub's client use its cache only, where neither the hub nor the proxy towards it accepts a connection.

    Call this before the client is imported. HF_ENDPOINT and HF_HUB_OFFLINE count as they do for the client.
    """
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or _ENDPOINT)
    first = urlsplit(getproxies().get(hub.scheme, "")) if getproxies().get(hub.scheme) else hub
    if "HF_HUB_OFFLINE" in os.environ or _connects(first.hostname or "", first.port or _PORTS[hub.scheme]):
        return
    os.environ["HF_HUB_OFFLINE"] = "1"


def _connects(host: str, port: int) -> bool:
    """Whether a connection opens in time. It runs in a thread, because looking up a name has no time limit."""
    opened: list[bool] = []

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), _LIMIT_S):
            opened.append(True)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_LIMIT_S)
    return bool(opened)
