"""Out of memory is a result, a lost peer a consequence, everything else a failure."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from jouleline.errors import UserError
from jouleline.measure.node.failures import RunFailure, describe_failure, is_out_of_memory, oom_kills
from jouleline.measure.node.outcome import Outcome
from jouleline.measure.train.record import covers_window
from jouleline.schemas.samples import MARKERS, SAMPLES

OOM = ("oom", "out_of_memory")


def chained() -> Exception:
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise RuntimeError("could not start the engine") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "oom", "out_of_memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "oom", "out_of_memory"),
        (MemoryError(), "oom", "out_of_memory"),
        (RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp"), *OOM),
        (chained(), "oom", "out_of_memory"),
        (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1"), "failed", "peer_lost"),
        (
            RuntimeError(
                "ncclRemoteError: A call failed possibly due to a remote process exiting prematurely."
            ),
            *("failed", "peer_lost"),
        ),
        (RuntimeError("NCCL error: Cuda failure 2 'out of memory'"), "oom", "out_of_memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed", "rank_failed"),
        (RunFailure("loss_not_finite", "the loss of step 3 is nan"), "failed", "loss_not_finite"),
        (UserError("no such checkpoint"), "failed", "bad_input"),
    ],
)
def test_what_ended_a_rank_is_told_apart(error, status, reason):
    assert describe_failure(error)[:2] == (status, reason)


def test_a_real_allocation_that_cannot_be_met_is_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_memory_kills_are_read_from_the_kernel(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/job").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("oom_kill 2\noom_kill_foo 9\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    assert oom_kills(tmp_path) == 2
    (tmp_path / "sys/fs/cgroup/job/memory.events").write_text("oom 5\noom_kill 3\n")
    assert oom_kills(tmp_path) == 5
    assert oom_kills() >= 0


def test_the_gravest_outcome_of_the_nodes_is_the_run_s():
    lost = Outcome("failed", "peer_lost", "rank 0 lost a peer")
    assert lost.worse("oom", "out_of_memory", "rank 1").status == "oom"
    assert lost.worse("failed", "rank_killed", "rank 1").reason == "rank_killed"
    assert Outcome("oom", "out_of_memory").worse("failed", "peer_lost", "").status == "oom"
    assert Outcome("ok").worse("ok", None, None) == Outcome("ok")
    assert Outcome("ok").worse("failed", "sidecar_died", "").reason == "sidecar_died"


@pytest.mark.parametrize(("last_us", "covered"), [(5_000_001, True), (4_999_999, False)])
def test_samples_of_a_dead_sidecar_count_if_they_go_past_the_window(tmp_path, last_us, covered):
    edges = [(1, 1, 10**9, "window"), (2, 1, 5 * 10**9, "window"), (2, 2, 9 * 10**9, "run")]
    marks = [
        {"node": 0, "kind": kind, "id": number, "t_ns": t, "name": name} for kind, number, t, name in edges
    ]
    samples = [{"node": 0, "t_us": t_us} for t_us in (0, last_us)] + [{"node": 1, "t_us": 10**9}]
    pq.write_table(pa.Table.from_pylist(marks, MARKERS.arrow_schema()), tmp_path / "markers.parquet")
    pq.write_table(pa.Table.from_pylist(samples, SAMPLES.arrow_schema()), tmp_path / "samples.parquet")
    assert covers_window(tmp_path, 0) is covered
    assert covers_window(tmp_path, 1) is False  # no mark says that its window ended
