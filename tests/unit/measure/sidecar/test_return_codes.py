"""Every return code of every NVML call that is used."""

import json
import os
import subprocess
import sys

import pytest
from paths import TESTS


@pytest.fixture(scope="module")
def outcome(libraries, tmp_path_factory) -> dict:
    worker = TESTS / "helpers" / "every_code.py"
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    environment |= {"LD_LIBRARY_PATH": str(libraries), "WORK": str(tmp_path_factory.mktemp("codes"))}
    done = subprocess.run([sys.executable, str(worker)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.fault(
    "any return code from any call or field while sampling", "null in that column, `call_failed`, an event"
)
def test_a_failing_call_gives_null_and_an_event(outcome):
    assert outcome["read"] == []
    assert outcome["combinations"] > 700


@pytest.mark.fault(
    "any return code from any call while opening", "one line and exit code 3 or 2, or the capability is off"
)
def test_a_failing_call_while_opening_is_one_line_or_a_missing_capability(outcome):
    assert outcome["open"] == []
    assert "nvmlInitWithFlags" in outcome["functions"]


@pytest.mark.fault(
    "any part of NVML that the device does not have", "no capability, null, or the older call's true value"
)
def test_what_a_device_does_not_have_is_neither_claimed_nor_made_up(outcome):
    assert outcome["absent"] == []
