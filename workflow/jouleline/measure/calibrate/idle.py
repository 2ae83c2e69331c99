"""The idle node, before anything runs on it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jouleline.measure.node import gpu_users
from jouleline.measure.node.environment import choose_device, describe
from jouleline.measure.node.files import sidecar_log
from jouleline.measure.sidecar.client import Sidecar, options_of

# A counter that ticks ten times a second shows ten ticks in this time.
SHORTEST_S = 1.0


def watch_idle(protocol: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Let the sidecar watch the idle node for idle_s seconds. Returns the content of idle.json without the devices.

    The measurement directory stays in `folder`. Raises UserError where there is no such meter.
    """
    begin = time.monotonic()
    device = choose_device(protocol["device"])
    if device == "cuda":
        gpu_users.require_unused()
    facts = describe(device)
    idle_s = max(protocol["idle_s"], SHORTEST_S)
    sidecar = Sidecar(Path(folder), options_of({**protocol, "idle_s": idle_s}), sidecar_log(Path(folder)))
    try:
        meter = sidecar.wait_ready(protocol["startup_timeout_s"])["meter"]
    finally:
        sidecar.terminate()
    return {
        "schema": 1,
        "host": facts["host"],
        "meter": meter,
        "method": "estimate: declared idle watts"
        if meter == "estimate"
        else f"{meter} over the idle stretch",
        "idle_s": idle_s,
        "duration_s": round(time.monotonic() - begin, 1),
    }
