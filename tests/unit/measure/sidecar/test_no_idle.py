"""`--idle-s 0`: regions that begin and end at once still have readings before and after them."""

import subprocess
import sys

import pytest
from fake_nvml.driver import constant
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement


@pytest.mark.fault("`--idle-s 0`", "the command is bracketed: every lane is read before it and after it")
@pytest.mark.parametrize("meter", ["nvml", "estimate"])
@pytest.mark.parametrize("period_ms", [20, 200])
def test_a_command_without_an_idle_baseline_is_bracketed(node, tmp_path, meter, period_ms):
    n = node()
    n.gpus[0].waves(constant(0, 300))
    for attempt in range(4):
        out = tmp_path / f"out-{attempt}"
        command = [sys.executable, "-m", "jouleline.commands.measure", "--out", str(out), "--idle-s", "0"]
        command += ["--meter", meter, "--period-ms", str(period_ms), "--", "sleep", f"{0.5 + 0.06 * attempt}"]
        subprocess.run(command, env=n.environment(), check=True, timeout=60)
        total = next(row for row in regions(load_measurement(out)) if row["device_uuid"] is None)
        # The edges of so short a region may be uncertain, which is another matter.
        assert total["reasons"] in ("", "edge_uncertain", "edge_too_uncertain")
        assert not [event for event in load_measurement(out).nodes[0].events if event["kind"] == "idle"]
