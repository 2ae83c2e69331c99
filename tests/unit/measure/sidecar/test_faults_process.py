"""Faults of the processes, the disk, the clock and the environment, on a fake node."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from fake_nvml.driver import DELAY, FOREVER, GPU_LOST, HANG, constant, square
from fake_nvml.session import Session, codes, when_quiet
from jouleline.measure.raw.markers import DEVICE, STEP


def load(node, gpu=0, period_s=0.27):
    node.gpus[gpu].waves(constant(0, 90), square(node.now_s() + 0.5, 150, 550, period_s))


# Where power steps by 400 W within a tick of 0.1 s, the edge of a region there is off by up to 400 W x 0.1 s / 4.
EDGES_J = 2 * 10.0


def close(row, truth, share=0.01):
    assert row["energy_j"] == pytest.approx(truth, rel=share, abs=EDGES_J)


@pytest.mark.fault("wall clock stepped by an hour", "`clock_step`; energy and time exact")
def test_wall_clock_stepped(node, tmp_path):
    n = node()
    load(n)
    n.state.wall_step_s, n.state.wall_step_at_s = 3600.0, FOREVER
    session = Session(n, tmp_path / "out", preload_os=True)
    n.state.wall_step_at_s = n.now_s() + 2.0
    with session.region("window"):
        time.sleep(4.0)
    rows = session.finish()
    row = session.row(rows, 0)
    assert codes(row) == {"clock_step"} and row["verdict"] == "valid"
    close(row, session.true_energy_j(0))


@pytest.mark.fault("disk full for 3 s", "`disk_failed`; samples wait in memory, nothing is lost")
def test_disk_full_for_a_while(node, tmp_path):
    n = node()
    load(n)
    n.state.disk_full_under = str(tmp_path / "out").encode()
    n.state.disk_full_from_s = n.state.disk_full_to_s = FOREVER
    session = Session(n, tmp_path / "out", preload_os=True)
    n.state.disk_full_to_s, n.state.disk_full_from_s = n.now_s() + 4.5, n.now_s() + 1.0
    with session.region("window"):
        time.sleep(5.5)
    row = session.row(session.finish(), 0)
    assert codes(row) == {"disk_failed"} and row["longest_gap_s"] < 2.0
    close(row, session.true_energy_j(0))


@pytest.mark.fault("disk full for good", "`device_missing` or `edges_unbracketed`, no energy")
def test_disk_full_for_good(node, tmp_path):
    n = node()
    load(n)
    session = Session(n, tmp_path / "out", preload_os=True)
    n.state.disk_full_under = str(tmp_path / "out").encode()
    n.state.disk_full_from_s, n.state.disk_full_to_s = n.now_s(), 1e12
    with session.region("window"):
        time.sleep(1.0)
    row = session.row(session.finish())
    assert row["verdict"] == "invalid" and row["energy_j"] is None
    assert codes(row) & {"device_missing", "edges_unbracketed"}


@pytest.mark.fault("sidecar stopped (SIGSTOP) for 1.5 s", "`gap`; energy exact, the counter bridges it")
def test_sidecar_stopped_for_a_while(node, tmp_path):
    n = node()

    def scenario(attempt):
        load(n)
        session = Session(n, tmp_path / f"out-{attempt}")
        with session.region("window"):
            time.sleep(1.0)
            session.process.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            session.process.send_signal(signal.SIGCONT)
            time.sleep(1.5)
        return session, session.finish()

    # The first reading after the stop is late by it.
    session, rows = when_quiet(scenario, stops=1)
    row = session.row(rows, 0)
    assert codes(row) == {"gap"} and row["verdict"] == "degraded"
    assert row["longest_gap_s"] == pytest.approx(1.5, abs=0.2)
    # What was missed is skipped: no burst of readings makes up for it.
    assert row["n_samples"] < (row["time_s"] - row["longest_gap_s"]) / (0.02 * 63 / 64) + 3
    assert row["covered_fraction"] == pytest.approx(1 - 1.5 / row["time_s"], abs=0.06)
    close(row, session.true_energy_j(0))


@pytest.mark.fault(
    "sidecar killed (SIGKILL)", "`sidecar_died`; a region that is not covered is `edges_unbracketed`"
)
def test_sidecar_killed(node, tmp_path):
    n = node()
    load(n)
    session = Session(n, tmp_path / "out")
    with session.region("early"):
        time.sleep(1.0)
    with session.region("late"):
        time.sleep(3.5)
        session.kill()
        time.sleep(0.3)
    rows = session.rows()
    early, late = session.row(rows, 0, "early"), session.row(rows, 0, "late")
    assert codes(early) == {"sidecar_died"} and early["verdict"] == "valid"
    close(early, session.true_energy_j(0, "early"), 0.03)
    assert late["energy_j"] is None and {"edges_unbracketed", "sidecar_died"} <= codes(late)


@pytest.mark.fault("steps of 100.3 ms against a refresh of 100 ms", "`alias_risk`; energy exact")
def test_steps_that_line_up_with_the_refresh(node, tmp_path):
    n = node()
    step_s, start_s = 0.1003, n.now_s() + 2.5
    # The sensor looks at 25 ms of every 100 ms. From the region's start on it sees the end of the step's high
    # part (60 ms), and 0.3 ms less far each time: for 10 s nothing else.
    refresh_s = 0.041 + 0.1 * math.ceil((start_s - 0.041) / 0.1)
    n.gpus[0].waves(square(0.0, 100, 600, step_s, 0.6, phase_s=(0.058 - refresh_s) % step_s))
    session = Session(n, tmp_path / "out")
    time.sleep(max(start_s - n.now_s(), 0))
    with session.region("window"):
        begin = time.monotonic_ns()
        time.sleep(10)
    for number in range(99):
        session.markers.write(STEP, begin + int((number + 1) * step_s * 1e9), number, 1)
    row = session.row(session.finish(), 0)
    truth = session.true_energy_j(0)
    assert abs(row["instant_energy_j"] / truth - 1) > 0.10
    assert abs(row["energy_j"] / truth - 1) < 0.003
    assert codes(row) == {"alias_risk"} and row["verdict"] == "valid"


@pytest.mark.fault("a call that hangs while the GPU is opened", "that GPU `device_missing`, the others exact")
def test_gpu_that_hangs_while_it_is_opened(node, tmp_path):
    n = node(3)
    for gpu in range(3):
        load(n, gpu)
    n.fault("nvmlDeviceGetUUID", HANG, gpu=1)
    begin = time.monotonic()
    session = Session(n, tmp_path / "out")
    assert session.ready and time.monotonic() - begin < 30
    with session.region("window"):
        time.sleep(2)
    rows = session.finish()
    close(session.row(rows, 2), session.true_energy_j(2), 0.02)
    assert session.row(rows)["energy_j"] is None and "device_missing" in codes(session.row(rows))


@pytest.mark.fault(
    "sampling that costs more than a tenth of its period for each GPU", "`period_doubled`; energy exact"
)
def test_sampling_that_costs_too_much(node, tmp_path):
    n = node(2)
    for gpu in range(2):
        load(n, gpu)
        n.fault("nvmlDeviceGetFieldValues", DELAY, gpu=gpu, seconds=0.002)
    session = Session(n, tmp_path / "out")
    with session.region("window"):
        time.sleep(4)
    row = session.row(session.finish(), 0)
    assert codes(row) == {"period_doubled"}
    close(row, session.true_energy_j(0), 0.02)


@pytest.mark.fault("rank on a GPU that is not measured for the run", "`wrong_pairing`, invalid")
def test_rank_on_another_gpu(node, tmp_path):
    n = node(2)
    session = Session(n, tmp_path / "out", "--gpus", n.uuid(0))
    other = n.uuid(1).removeprefix("GPU-").replace("-", "").encode()
    session.markers.write(DEVICE, time.monotonic_ns(), os.getpid(), 0, other)
    with session.region("window"):
        time.sleep(0.8)
    row = session.row(session.finish())
    assert "wrong_pairing" in codes(row) and row["energy_j"] is None


@pytest.mark.fault("a rank whose process is on another GPU than it says", "`wrong_pairing`, invalid")
def test_rank_that_says_the_wrong_gpu(node, tmp_path):
    n = node(2)
    n.gpus[1].pids[0], n.gpus[1].n_pids = os.getpid(), 1
    session = Session(n, tmp_path / "out")
    said = n.uuid(0).removeprefix("GPU-").replace("-", "").encode()
    session.markers.write(DEVICE, time.monotonic_ns(), os.getpid(), 0, said)
    with session.region("window"):
        time.sleep(1.2)
    row = session.row(session.finish())
    assert "wrong_pairing" in codes(row) and row["energy_j"] is None


@pytest.mark.fault("a MIG slice", "parent measured, `mig_shared`")
def test_mig_slice(node, tmp_path):
    n = node(2)
    n.gpus[1].mig_slices = 2
    load(n, 1)
    uuid = "MIG-aa000001" + n.uuid(1)[12:]
    session = Session(n, tmp_path / "out", CUDA_VISIBLE_DEVICES=uuid)
    with session.region("window"):
        time.sleep(2)
    rows = session.finish()
    row = session.row(rows, 1)
    assert "mig_shared" in codes(row) and row["verdict"] == "degraded"
    close(row, session.true_energy_j(1), 0.02)
    assert [r["device_uuid"] for r in rows] == [n.uuid(1), None]


@pytest.mark.fault("a rank on a MIG slice that CUDA_VISIBLE_DEVICES does not name", "`mig_shared`")
def test_mig_slice_that_only_the_rank_names(node, tmp_path):
    n = node()
    n.gpus[0].mig_slices = 2
    load(n)
    session = Session(n, tmp_path / "out")
    said = ("aa000001" + n.uuid(0)[12:]).replace("-", "").encode()
    session.markers.write(DEVICE, time.monotonic_ns(), os.getpid(), 1, said)
    with session.region("window"):
        time.sleep(2)
    row = session.row(session.finish(), 0)
    assert codes(row) == {"mig_shared"} and row["verdict"] == "degraded"
    close(row, session.true_energy_j(0), 0.02)


def refusal(node, out, *arguments, **environment) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "jouleline.measure.sidecar",
        "--out",
        str(out),
        "--idle-s",
        "0",
        *arguments,
    ]
    done = subprocess.run(
        command, env=node.environment(**environment), capture_output=True, text=True, timeout=30
    )
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    return done.returncode, done.stderr


@pytest.mark.fault("no driver", "exit code 3 and one line")
def test_no_driver(node, tmp_path):
    n = node()
    n.state.driver_missing = 1
    code, said = refusal(n, tmp_path / "out", "--meter", "nvml")
    assert code == 3 and "Driver Not Loaded" in said


@pytest.mark.fault("no permission for NVML", "exit code 3 and one line")
def test_no_permission(node, tmp_path):
    n = node()
    n.fault("nvmlInitWithFlags", code=4)
    code, said = refusal(n, tmp_path / "out", "--meter", "nvml")
    assert code == 3 and "Insufficient Permissions" in said


@pytest.mark.fault("GPU that is not there", "exit code 2; the line lists those there are")
@pytest.mark.parametrize("asked", ["GPU-deadbeef", "7"])
def test_unknown_gpu(node, tmp_path, asked):
    n = node(2)
    code, said = refusal(n, tmp_path / "out", "--meter", "nvml", "--gpus", asked)
    assert code == 2 and n.uuid(0) in said and n.uuid(1) in said


@pytest.mark.fault("different GPUs and integers in CUDA_VISIBLE_DEVICES", "exit code 2 and the remedy")
def test_heterogeneous_gpus_by_integer(node, tmp_path):
    n = node(2)
    n.gpus[1].name = b"NVIDIA Fake A2"
    code, said = refusal(n, tmp_path / "out", "--meter", "nvml", CUDA_VISIBLE_DEVICES="1")
    assert code == 2 and "CUDA_DEVICE_ORDER=PCI_BUS_ID" in said


@pytest.mark.fault(
    "GPU that answers too late when it is asked for by an integer", "exit code 2; no other GPU is measured"
)
def test_slow_gpu_by_integer(node, tmp_path):
    n = node(2)
    n.fault("nvmlDeviceGetUUID", DELAY, gpu=0, seconds=5)
    order = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    code, said = refusal(n, tmp_path / "out", "--meter", "nvml", **order)
    assert code == 2 and "GPU 0 did not answer" in said and "UUIDs" in said


def test_a_gpu_that_is_initialised_first_is_waited_for(node, tmp_path):
    n = node(2)
    for gpu in range(2):  # what a GPU without persistence mode takes at its first handle
        load(n, gpu)
        n.fault("nvmlDeviceGetHandleByIndex_v2", DELAY, gpu=gpu, seconds=2.5)
    session = Session(n, tmp_path / "out")
    with session.region("window"):
        time.sleep(1.5)
    rows = session.finish()
    for gpu in range(2):
        close(session.row(rows, gpu), session.true_energy_j(gpu), 0.02)


@pytest.mark.fault("GPU of another job that is lost", "the job's are measured")
def test_lost_gpu_of_another_job(node, tmp_path):
    n = node(2)
    n.fault("nvmlDeviceGetUUID", code=GPU_LOST, gpu=1)
    session = Session(n, tmp_path / "out", idle_s=0, CUDA_VISIBLE_DEVICES="0")
    assert session.ready, session.process.stderr.read()
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert [device["uuid"] for device in meta["devices"] if device["kind"] == "gpu"] == [n.uuid(0)]
    assert session.stop() == 0


@pytest.mark.fault("directory that cannot be written", "exit code 2 and one line")
def test_read_only_directory(node):
    code, said = refusal(node(), "/proc/jouleline", "--meter", "nvml")
    assert code == 2 and "/proc/jouleline" in said


@pytest.mark.fault("second sidecar on a node for one job", "exit code 4 and one line")
@pytest.mark.fault("several jobs on one node", "each is measured by a sidecar of its own")
def test_second_sidecar_of_a_job_refuses(node, tmp_path):
    n = node()
    first = Session(n, tmp_path / "first", SLURM_JOB_ID="71", SLURMD_NODENAME="n1")
    code, said = refusal(n, tmp_path / "second", SLURM_JOB_ID="71", SLURMD_NODENAME="n1")
    assert code == 4 and "71" in said and "srun" in said
    # Another job on the same node may measure at the same time, and so may another step of the job.
    for name, job, step in (("third", "72", None), ("fourth", "71", "0"), ("fifth", "71", "1")):
        own = {"SLURM_JOB_ID": job, "SLURMD_NODENAME": "n1"} | ({"SLURM_STEP_ID": step} if step else {})
        other = Session(n, tmp_path / name, **own)
        assert other.ready and other.stop() == 0
    assert first.stop() == 0


def test_two_runs_in_deep_folders_do_not_take_each_other_for_one(node, tmp_path):
    n = node()
    deep = tmp_path / ("d" * 120)
    first, second = (Session(n, deep / name, idle_s=0) for name in ("one", "two"))
    assert first.ready and second.ready, second.process.stderr.read()
    assert (first.stop(), second.stop()) == (0, 0)
    (deep / "one" / "ready.json").unlink()  # the first one's: the third is not ready before it writes its own
    third = Session(n, deep / "one", idle_s=0)
    code, said = refusal(n, deep / "one", "--meter", "nvml")
    assert code == 4 and "already measures" in said
    assert third.stop() == 0


@pytest.mark.fault("death of the parent", "the sidecar ends and its files are whole")
def test_death_of_the_parent(node, tmp_path):
    n = node()
    starter = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'jouleline.measure.sidecar', '--out', sys.argv[1], '--idle-s', '0'])\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter, str(tmp_path / "out")], env=n.environment())
    until = time.monotonic() + 20
    while not (tmp_path / "out" / "ready.json").exists() and time.monotonic() < until:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    while not (tmp_path / "out" / "samples.parquet").exists() and time.monotonic() < until:
        time.sleep(0.02)
    until = time.monotonic() + 5
    while (meta := json.loads((tmp_path / "out" / "meta.json").read_text()))["stopped_by"] is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert meta["stopped_by"] == "death of the parent"
