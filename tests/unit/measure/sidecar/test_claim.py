"""Two measurements that would write the same files, and a start that fails."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from fake_nvml.session import Session
from jouleline.errors import UserError
from jouleline.measure.sidecar.claim import NAME, claim_folder, require_free
from test_faults_process import refusal


def wrapped(out, node: str, *command: str) -> subprocess.Popen:
    """`jouleline measure` as one task of a job, on a node that sees the others' files."""
    program = [sys.executable, "-m", "jouleline.commands.measure", "--out", str(out), "--idle-s", "0.3"]
    environment = os.environ | {"SLURM_JOB_ID": "99", "SLURMD_NODENAME": node}
    return subprocess.Popen(
        [*program, "--meter", "estimate", "--", *command], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.fault("two nodes with one --out", "the second: exit code 4 and one line; its command is not run")
@pytest.mark.parametrize("apart_s", [0.0, 3.0])
def test_two_nodes_do_not_measure_into_one_folder(tmp_path, apart_s):
    out = tmp_path / "out"
    tasks = []
    for node in ("n1", "n2"):
        tasks.append(wrapped(out, node, "sh", "-c", f"sleep 5; touch {tmp_path}/ran-{node}"))
        time.sleep(apart_s if node == "n1" else 0)
    said = {task.communicate(timeout=60)[1]: task.returncode for task in tasks}
    refused = next(line for line in said if line)
    assert sorted(said.values()) == [0, 4] and said[refused] == 4
    assert refused.count("\n") == 1 and f"--out {out}/$SLURMD_NODENAME" in refused
    ran = [path.name.removeprefix("ran-") for path in tmp_path.glob("ran-*")]
    assert ran == [json.loads((out / "meta.json").read_text())["node"]]
    assert (out / "samples.parquet").exists() and not (out / NAME).exists()


def test_the_claim_of_a_process_that_has_ended_does_not_block(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    claim = {"node": "n1", "host": socket.gethostname(), "pid": ended.pid}
    (tmp_path / NAME).write_text(json.dumps(claim))
    with claim_folder(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match="SLURMD_NODENAME"):
            require_free(tmp_path)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("content", ["", '{"node": "n1", "host": "another", "pid": 1}'])
def test_a_claim_that_is_being_written_or_of_another_host_blocks(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(UserError, match=f"or delete {tmp_path / NAME}") as caught, claim_folder(tmp_path):
        pass
    assert caught.value.exit_code == 4 and (tmp_path / NAME).read_text() == content


def test_a_sidecar_that_cannot_measure_leaves_the_last_measurement(node, tmp_path):
    n = node()
    session = Session(n, tmp_path / "out", idle_s=0)
    with session.region("window"):
        time.sleep(0.5)
    assert session.stop() == 0
    before = {path.name for path in session.out.rglob("*") if path.is_file()} - {"stop", "ready.json"}
    assert {"meta.json", "events.jsonl", "samples.parquet", "rank-0.bin"} <= before
    code, _ = refusal(n, session.out, "--meter", "nvml", "--gpus", "GPU-typo")
    assert code == 2
    assert {path.name for path in session.out.rglob("*") if path.is_file()} == before


@pytest.mark.fault(
    "GPUs that are named, and no driver", "exit code 3 and one line; no estimate in their place"
)
def test_named_gpus_are_not_estimated(node, tmp_path):
    n = node()
    n.state.driver_missing = 1
    code, said = refusal(n, tmp_path / "out", "--gpus", n.uuid(0))
    assert code == 3 and "Driver Not Loaded" in said


@pytest.mark.parametrize(
    "watts", ["{bad", "[1]", '{"idle_w": "much"}', '{"idle_w": null}', '{"w_per_core": NaN}']
)
def test_watts_that_are_none_are_one_line(node, tmp_path, watts):
    code, said = refusal(node(), tmp_path / "out", "--meter", "estimate", "--estimate", watts)
    assert code == 2 and "--estimate" in said


def test_what_measured_is_in_meta(node, tmp_path):
    session = Session(node(), tmp_path / "out", idle_s=0)
    assert session.stop() == 0
    code = json.loads((session.out / "meta.json").read_text())["code"]
    assert code["version"][0].isdigit() and len(code["digest"]) == 16
