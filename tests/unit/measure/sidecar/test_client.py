"""Starting, awaiting and stopping a sidecar."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from jouleline.errors import UserError
from jouleline.measure.sidecar.client import Sidecar
from jouleline.measure.sidecar.process import own_code
from paths import ROOT

ESTIMATE = {"meter": "estimate", "idle-s": 0}
# -P: as the installed command, which does not look into the current folder either.
MEASURE = [sys.executable, "-P", "-m", "jouleline.commands.main", "measure", "--meter", "estimate"]


@pytest.mark.fault("modules of the user named like ours", "they are not the sidecar's: it measures")
@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("current folder", ("random.py", "types.py", "queue.py")),
        ("current folder", ("numpy/__init__.py",)),
        ("PYTHONPATH", ("numpy/__init__.py",)),
        ("PYTHONPATH", ("pyarrow.py", "resource.py")),
    ],
)
def test_foreign_modules_do_not_reach_the_sidecar(tmp_path, where, names):
    foreign = tmp_path / "foreign"
    for name in names:
        (foreign / name).parent.mkdir(parents=True, exist_ok=True)
        (foreign / name).write_text("raise ImportError('a foreign module')\n")
    search = [str(ROOT / "workflow")] + ([str(foreign)] if where == "PYTHONPATH" else [])
    done = subprocess.run(
        [*MEASURE, "--out", str(tmp_path / "out"), "--idle-s", "0", "--", "true"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(search)},
        cwd=foreign,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "samples.parquet").exists()


def test_the_sidecar_is_of_the_same_package_as_its_client(tmp_path):
    """Whatever other jouleline the interpreter would find first."""
    sidecar = Sidecar(tmp_path, ESTIMATE)
    try:
        sidecar.wait_ready()
        meta = json.loads((tmp_path / "meta.json").read_text())
    finally:
        assert sidecar.stop() == 0
    assert meta["code"]["digest"] == own_code()["digest"]


def test_a_sidecar_that_cannot_start_says_why_in_its_own_line(tmp_path):
    with pytest.raises(UserError, match="--period-ms 0 is not between") as raised:
        Sidecar(tmp_path, ESTIMATE | {"period-ms": 0}).wait_ready()
    assert raised.value.exit_code == 2


def test_one_that_is_killed_before_it_is_ready(tmp_path):
    sidecar = Sidecar(tmp_path, ESTIMATE | {"idle-s": 30})
    os.kill(sidecar.process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="the sidecar ended with -9"):
        sidecar.wait_ready()


@pytest.mark.parametrize("end", [Sidecar.stop, Sidecar.terminate])
def test_one_that_hangs_is_killed(tmp_path, end):
    sidecar = Sidecar(tmp_path, ESTIMATE, tmp_path / "sidecar.log")
    sidecar.wait_ready()
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    assert end(sidecar, 0.2) == -signal.SIGKILL and sidecar.died


def test_one_whose_folder_is_gone_is_ended_at_once(tmp_path):
    """Nobody would see the file that asks it to end, and `measure` would wait for minutes."""
    sidecar = Sidecar(tmp_path / "out", ESTIMATE, tmp_path / "sidecar.log")
    sidecar.wait_ready()
    shutil.rmtree(tmp_path / "out")
    begin = time.monotonic()
    sidecar.stop(limit_s=40)
    assert time.monotonic() - begin < 30
