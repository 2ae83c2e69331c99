"""The node agent end to end: real sidecar, real DeepSpeed training, and every way in which a run can end."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jouleline.grid import complete_row

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_run.py"
ROW = {
    **{"layers": 2, "hidden": 32, "heads": 4, "intermediate": 64, "seq_len": 16, "micro_batch": 4},
    **{"vocab_size": 512, "max_positions": 32, "gpus_per_node": 2, "zero_stage": 1},
}
SHORT = {"window_s": 0.3, "idle_s": 0.1, "warmup_max_steps": 10, "device": "cpu", "meter": "estimate"}
LONG = {**SHORT, "window_s": 60.0}


class Agent:
    """A node agent as a child process."""

    def __init__(self, out: Path, dataset: Path, row=None, protocol=None, extra=(), prefix=(), **popen):
        self.out = out
        command = [
            *prefix,
            sys.executable,
            str(SCRIPT),
            "--run-id",
            "t",
            "--row",
            json.dumps({**ROW, **(row or {})}),
        ]
        command += ["--protocol", json.dumps(protocol or SHORT), "--code-digest", "0"]
        command += ["--dataset", str(dataset), "--out-dir", str(out), *extra]
        hidden = {"SLURM_NODEID", "SLURM_NNODES", "SLURM_JOB_ID", "SLURM_TMPDIR"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **popen
        )

    def wait(self, timeout_s: float = 120) -> tuple[int, str]:
        """Exit code and output."""
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def training(self, node: int = 0, timeout_s: float = 90) -> dict[str, list[int]]:
        """Wait until the ranks are in the measured window; the pids of sidecar and ranks."""
        folder = self.out / "raw" / f"node-{node}"
        deadline = time.monotonic() + timeout_s
        while not any(b"window" in path.read_bytes() for path in folder.glob("markers/rank-*.bin")):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        sidecar = json.loads((folder / "ready.json").read_text())["pid"]
        return {"sidecar": [sidecar], "ranks": [pid for pid in self.children() if pid != sidecar]}


def gone(pids: list[int], timeout_s: float = 10) -> bool:
    """Whether all processes end in time (a zombie has ended)."""
    deadline = time.monotonic() + timeout_s
    left = set(pids)
    while left and time.monotonic() < deadline:
        for pid in list(left):
            with contextlib.suppress(OSError, IndexError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    continue
            left.discard(pid)
        time.sleep(0.05)
    return not left


def failed(out: Path) -> dict:
    """run.failed.json of a run that left nothing which could be taken for a result."""
    assert not any((out / name).exists() for name in ("run.json", "samples.parquet", "markers.parquet"))
    return json.loads((out / "run.failed.json").read_text())


def test_a_run_leaves_three_whole_files(tmp_path, dataset):
    (tmp_path / "run.failed.json").write_text("{}")  # of an earlier attempt
    code, output = Agent(tmp_path, dataset).wait()
    assert code == 0, output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "markers.parquet",
        "run.json",
        "samples.parquet",
    ]
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["status"], run["reason"], run["row"]) == ("ok", None, complete_row(ROW))
    assert run["nodes"][0]["exit_codes"] == [0, 0] and run["nodes"][0]["sidecar_exit"] == 0
    training = run["training"]
    assert training["steps"] >= 10 and training["time_s"] >= 0.3
    assert len(training["step_times_s"]) == training["steps"]
    assert sum(training["step_times_s"]) == pytest.approx(training["time_s"], rel=0.02)
    assert (training["world_size"], training["data_parallel"], training["global_batch"]) == (2, 2, 8)
    assert training["samples"] == 8 * training["steps"] and training["tokens"] == 16 * training["samples"]
    assert 0 <= training["accuracy"] <= 1 and training["loss_last"] > 0
    assert run["environment"]["packages"]["deepspeed"] and run["environment"]["device"]
    assert "measured" in output  # progress


def test_markers_bound_the_measured_window_of_every_rank(tmp_path, dataset):
    code, output = Agent(tmp_path, dataset, {"zero_stage": 0, "tensor_parallel": 2}).wait()
    assert code == 0, output
    training = json.loads((tmp_path / "run.json").read_text())["training"]
    assert (training["data_parallel"], training["global_batch"]) == (1, 4)
    marks = pq.read_table(tmp_path / "markers.parquet").to_pylist()
    samples = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    for rank in (0, 1):
        mine = [mark for mark in marks if mark["rank"] == rank]
        starts = {mark["name"]: mark for mark in mine if mark["kind"] == 1}
        assert set(starts) == {"run", "warmup", "window", "evaluation"}
        window = starts["window"]
        (end,) = [mark["t_ns"] for mark in mine if mark["kind"] == 2 and mark["id"] == window["id"]]
        assert (end - window["t_ns"]) * 1e-9 == pytest.approx(training["time_s"], abs=0.1)
        assert sum(mark["kind"] == 3 for mark in mine) == training["steps"]
        assert min(s["t_us"] for s in samples) * 1000 < window["t_ns"]
        assert max(s["t_us"] for s in samples) * 1000 > end


@pytest.mark.parametrize(
    ("row", "protocol", "said"),
    [
        ({"precision": "fp16"}, SHORT, "fp16 does not train on a CPU"),
        ({"tensor_parallel": 8}, SHORT, "tensor_parallel 8"),
        ({"vocab_size": 300}, SHORT, "512 token ids"),
        ({"num_labels": 2}, SHORT, "num_labels is 2"),
        ({"nodes": 2}, SHORT, "--node-rank"),
        ({}, {**SHORT, "devise": "cpu"}, "protocol.devise"),
        ({}, {**SHORT, "meter": "rapl", "device": "cuda"}, "device"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, dataset, row, protocol, said):
    code, output = Agent(tmp_path, dataset, row, protocol).wait()
    assert code == 2
    assert output.startswith("error: ") and said in output and output.count("\n") == 1
    assert not (tmp_path / "raw").exists()


def test_missing_dataset_is_one_clear_line(tmp_path):
    code, output = Agent(tmp_path, tmp_path / "none.parquet").wait()
    assert code == 2 and "none.parquet is not a prepared dataset (no such file)" in output


def test_a_loss_that_is_not_finite_fails_the_run(tmp_path, dataset):
    code, output = Agent(tmp_path, dataset, {"learning_rate": 1e30, "gpus_per_node": 1}).wait()
    record = failed(tmp_path)
    assert code == 1 and "loss_not_finite" in output
    assert (record["status"], record["reason"]) == ("failed", "loss_not_finite")
    assert (tmp_path / "raw" / "node-0" / "samples.parquet").exists()


def test_out_of_memory_is_a_result(tmp_path, dataset):
    def limit():  # the libraries fit, embeddings of 4 GB do not
        resource.setrlimit(resource.RLIMIT_DATA, (2_500_000_000, 2_500_000_000))

    row = {"hidden": 256, "vocab_size": 4_000_000, "gpus_per_node": 1}
    code, output = Agent(tmp_path, dataset, row, preexec_fn=limit).wait()
    assert code == 0, output
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["status"], run["reason"], run["training"]) == ("oom", "out_of_memory", None)
    assert run["nodes"][0]["exit_codes"] == [12]
    assert (tmp_path / "samples.parquet").exists() and (tmp_path / "markers.parquet").exists()


def test_sigterm_keeps_the_raw_measurement(tmp_path, dataset):
    agent = Agent(tmp_path, dataset, protocol=LONG)
    pids = agent.training()
    time.sleep(0.5)
    agent.process.send_signal(signal.SIGTERM)
    code, output = agent.wait(20)
    assert code == 128 + signal.SIGTERM and "stopped by SIGTERM" in output
    assert gone([*pids["ranks"], *pids["sidecar"]], 1)
    assert failed(tmp_path)["reason"] == "stopped"
    samples = pq.read_table(tmp_path / "raw" / "node-0" / "samples.parquet")
    assert samples.num_rows > 10


def test_a_dead_rank_ends_the_run_and_is_named(tmp_path, dataset):
    agent = Agent(tmp_path, dataset, protocol=LONG)
    pids = agent.training()
    os.kill(pids["ranks"][1], signal.SIGKILL)
    code, output = agent.wait(30)
    assert code == 1 and "rank 1 was killed by signal 9" in output
    assert gone([*pids["ranks"], *pids["sidecar"]], 1)
    record = failed(tmp_path)
    assert record["reason"] == "rank_killed" and record["nodes"][0]["exit_codes"][1] == -9
    assert (tmp_path / "raw" / "node-0" / "rank-0.log").exists()


def test_nothing_outlives_a_killed_agent(tmp_path, dataset):
    agent = Agent(tmp_path, dataset, protocol=LONG)
    pids = agent.training()
    assert len(pids["ranks"]) == 2
    agent.process.kill()
    assert gone([*pids["ranks"], *pids["sidecar"]], 10)
    assert not any(tmp_path.glob("*.parquet")) and not (tmp_path / "run.json").exists()
    agent.process.communicate()
    # The next attempt is not misled by what the last one left.
    code, output = Agent(tmp_path, dataset, {"gpus_per_node": 1}).wait()
    assert code == 0, output
    assert not (tmp_path / "raw").exists()


def test_the_trainer_outlives_the_sidecar_but_the_run_is_to_be_done_again(tmp_path, dataset):
    agent = Agent(tmp_path, dataset, protocol={**SHORT, "window_s": 2.0})
    pids = agent.training()
    os.kill(pids["sidecar"][0], signal.SIGKILL)
    code, output = agent.wait()
    record = failed(tmp_path)
    assert code == 1 and record["reason"] == "sidecar_died"
    assert record["nodes"][0]["exit_codes"] == [0, 0]  # it trained to the end
    assert record["training"]["time_s"] >= 2.0
    assert "measured" in output
