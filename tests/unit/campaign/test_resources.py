"""What a job asks of Slurm follows from its row and the protocol."""

import pytest
from jouleline.campaign import resources

ROW = {
    "layers": 12,
    "hidden": 768,
    "intermediate": 3072,
    "seq_len": 128,
    "vocab_size": 30522,
    "micro_batch": 8,
    "heads": 12,
    "gpus_per_node": 4,
}
GPU, CPU = {"device": "cuda", "threads_per_device": 2}, {"device": "cpu", "threads_per_device": 2}


def test_cpus_are_the_threads_of_the_ranks_or_four_a_gpu():
    assert resources.cpus_per_task(3, CPU) == 6
    assert resources.cpus_per_task(3, GPU) == 12


@pytest.mark.parametrize(
    ("kind", "protocol", "expected"),
    [(None, GPU, "gpu:4"), ("gpu:h100", GPU, "gpu:h100:4"), (None, CPU, None), ("fpga", CPU, "fpga:4")],
)
def test_gres_is_of_the_site_else_of_the_device(kind, protocol, expected):
    assert resources.gres(4, kind, protocol) == expected


def test_memory_holds_the_weights_of_every_rank_and_the_activations_of_a_cpu():
    weights_mb = 24 * (12 * (4 * 768**2 + 2 * 768 * 3072) + 30522 * 768) / 1e6
    assert resources.memory_mb(ROW, GPU) == 2000 + 4 * (2500 + int(weights_mb))
    assert resources.memory_mb(ROW, CPU) > resources.memory_mb(ROW, GPU)
    assert resources.memory_mb(ROW | {"gpus_per_node": 1}, GPU) < resources.memory_mb(ROW, GPU)


def test_run_time_grows_with_every_wait_of_the_protocol():
    protocol = {"startup_timeout_s": 600, "idle_s": 30, "cooldown_max_s": 120, "window_max_s": 300}
    assert resources.runtime_min(protocol) == (600 + 60 + 120 + 1200) // 60 + 2
    assert all(
        resources.runtime_min(protocol | {key: value + 600}) > resources.runtime_min(protocol)
        for key, value in protocol.items()
    )
