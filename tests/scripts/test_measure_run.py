"""The node agent end to end: real sidecar, real DeepSpeed training, and every way in which a run can end."""

import json
import os
import resource
import signal
import time

import pyarrow.parquet as pq
import pytest
from agent_process import LONG, ROW, SHORT, Agent, failed, gone
from jouleline.campaign.grid import complete_row
from jouleline.energy.integrate import runs_regions
from jouleline.measure.node.device_lock import DeviceLock


@pytest.fixture(scope="module")
def measured(tmp_path_factory, dataset):
    """(the folder of a finished run, what its agent said)."""
    out = tmp_path_factory.mktemp("measured")
    (out / "run.failed.json").write_text("{}")  # of an earlier attempt
    code, output = Agent(out, dataset).wait()
    assert code == 0, output
    return out, output


def test_a_run_leaves_three_whole_files(measured):
    out, output = measured
    assert sorted(path.name for path in out.iterdir()) == [
        "markers.parquet",
        "run.json",
        "samples.parquet",
    ]
    run = json.loads((out / "run.json").read_text())
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


def test_a_decoder_is_measured_from_its_row_to_its_record(tmp_path, source_dataset):
    row = {"model_type": "llama", "kv_heads": 2, "tensor_parallel": 2, "zero_stage": 0}
    row |= {"task": "clm", "dataset": "source"}
    code, output = Agent(tmp_path, source_dataset, row).wait()
    assert code == 0, output
    run = json.loads((tmp_path / "run.json").read_text())
    training = run["training"]
    assert (run["row"]["task"], run["row"]["dataset"]) == ("clm", "source") and training["num_labels"] is None
    assert training["tensor_parallel"] == 2
    assert (
        training["attention_kernels"] == ["flash_attention"] and training["attention_causal_half_share"] == 1
    )
    assert 0 <= training["accuracy"] <= 1 and 0 < training["eval_loss"] < 7


def test_markers_bound_the_measured_window_of_every_rank(measured):
    out, _ = measured
    training = json.loads((out / "run.json").read_text())["training"]
    marks = pq.read_table(out / "markers.parquet").to_pylist()
    samples = pq.read_table(out / "samples.parquet").to_pylist()
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
    assert code == 2 and "none.parquet; run the rule that makes it" in output


def test_a_loss_that_is_not_finite_fails_the_run(tmp_path, dataset):
    code, output = Agent(tmp_path, dataset, {"learning_rate": 1e30, "gpus_per_node": 1}).wait()
    record = failed(tmp_path)
    assert code == 1 and "loss_not_finite" in output
    assert (record["status"], record["reason"]) == ("failed", "loss_not_finite")
    assert (tmp_path / "raw" / "node-0" / "samples.parquet").exists()


TOO_LARGE = {"hidden": 256, "vocab_size": 4_000_000, "gpus_per_node": 1}


def too_large(out, dataset) -> Agent:
    """An agent whose memory is limited while it begins: the libraries fit, embeddings of 4 GB do not."""
    agent = Agent(out, dataset, TOO_LARGE)
    resource.prlimit(agent.process.pid, resource.RLIMIT_DATA, (2_500_000_000, 2_500_000_000))
    return agent


def test_out_of_memory_is_a_result(tmp_path, dataset):
    code, output = too_large(tmp_path, dataset).wait()
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


def until_prepared(agent: Agent) -> None:
    while not (agent.out / "raw" / "node-0" / "prepared-0").exists():
        assert agent.process.poll() is None, agent.wait()
        time.sleep(0.05)


def test_two_runs_that_are_ready_together_are_measured_one_after_the_other(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("JOULELINE_DEVICE_LOCK", str(tmp_path / "device.lock"))
    with DeviceLock():
        agents = [Agent(tmp_path / name, dataset, {"gpus_per_node": 1}) for name in ("a", "b")]
        for agent in agents:
            until_prepared(agent)
    spans_s, waits_s = [], []
    for agent in agents:
        code, output = agent.wait()
        assert code == 0, output
        times_us = pq.read_table(agent.out / "samples.parquet", columns=["t_us"])["t_us"].to_pylist()
        spans_s.append((min(times_us) * 1e-6, max(times_us) * 1e-6))
        startup_s = json.loads((agent.out / "run.json").read_text())["training"]["startup_s"]
        waits_s.append(startup_s["device_wait"])
    (first_start, first_end), (second_start, _) = sorted(spans_s)
    assert first_end < second_start
    # The lock is free only when the first run has been measured: the second was ready all that time.
    assert max(waits_s) > min(waits_s) + first_end - first_start


def test_a_rank_that_fails_while_it_prepares_does_not_wait_for_the_device(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("JOULELINE_DEVICE_LOCK", str(tmp_path / "device.lock"))
    with DeviceLock():  # another measurement, longer than this test
        # Out of memory while the model is built: a result, though of no measurement.
        code, output = too_large(tmp_path / "large", dataset).wait(60)
        assert code == 0, output
        # And one that dies after it was ready.
        waiting = Agent(tmp_path / "killed", dataset, {"gpus_per_node": 1})
        until_prepared(waiting)
        os.kill(waiting.children()[0], signal.SIGKILL)
        code, output = waiting.wait(60)
        assert code == 1 and failed(tmp_path / "killed")["reason"] == "rank_killed"
    run = json.loads((tmp_path / "large" / "run.json").read_text())
    assert (run["status"], run["nodes"][0]["meta"]) == ("oom", None)
    (region,) = runs_regions(tmp_path, ["large"])
    assert (region["verdict"], region["energy_j"]) == ("invalid", None)
