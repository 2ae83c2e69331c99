"""Power of the idle node, before anything runs on it."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jouleline.energy.device_regions import DeviceView
from jouleline.energy.load import load_measurement
from jouleline.energy.state import idle_power
from jouleline.measure.environment import choose_device, describe
from jouleline.measure.launcher import Sidecar

# A counter that ticks ten times a second sees ten ticks.
SHORTEST_S = 1.0


def measure_idle(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Let the sidecar look at the idle node for idle_s seconds; returns the content of idle.json.

    Per device of the meter: uuid, name, kind, role, idle_power_w (None where it cannot be had).
    Raises UserError where there is no such meter.
    """
    device = choose_device(protocol["device"])
    idle_s = max(protocol["idle_s"], SHORTEST_S)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jouleline-idle-") as scratch:
        sidecar = Sidecar(Path(scratch), dict(protocol) | {"idle_s": idle_s})
        try:
            ready = sidecar.wait_ready(protocol["startup_timeout_s"] + idle_s)
        finally:
            sidecar.terminate()
        node = load_measurement(scratch).nodes[0]
        devices = [
            {
                **{key: series.info.get(key) for key in ("uuid", "name", "kind", "role")},
                "idle_power_w": idle_power(node, DeviceView(node, series)),
            }
            for series in node.devices
        ]
    facts = describe(device)
    meter = ready["meter"]
    how = "estimate: declared idle watts" if meter == "estimate" else f"{meter} over the idle stretch"
    return {
        "schema": 1,
        "host": facts["host"],
        "device": facts["device"] or next((one["name"] for one in devices if one["kind"] == "gpu"), None),
        "meter": meter,
        "method": how,
        "idle_s": idle_s,
        "devices": devices,
        "duration_s": round(time.monotonic() - begin, 1),
    }
