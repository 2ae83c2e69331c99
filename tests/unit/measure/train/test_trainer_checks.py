"""What a run checks about itself: the strategy that DeepSpeed made, and the samples that every rank took."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from deepspeed.runtime.utils import get_weight_norm
from jouleline.campaign.grid import complete_row
from jouleline.measure.node.failures import RunFailure
from jouleline.measure.train.data import Batches, read_dataset
from jouleline.measure.train.parallel import Layout, _check_strategy, _norm
from jouleline.measure.train.trainer import Trainer, _StepClock

ROW = complete_row(
    {
        **{"layers": 2, "hidden": 32, "heads": 4, "intermediate": 64, "seq_len": 16, "micro_batch": 4},
        **{"vocab_size": 512, "max_positions": 32, "grad_accum": 2},
    }
)


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def engine(**change):
    facts = {"stage": 0, "replicas": 1, "shards": 1, "micro_batch": 4, "accumulated": 2} | change
    return SimpleNamespace(
        module=torch.nn.Linear(3, 4),
        dp_world_size=facts["replicas"],
        zero_optimization_stage=lambda: facts["stage"],
        autotp_size=lambda: facts["shards"],
        train_micro_batch_size_per_gpu=lambda: facts["micro_batch"],
        gradient_accumulation_steps=lambda: facts["accumulated"],
    )


def test_the_strategy_that_was_asked_for_is_accepted(alone):
    _check_strategy(engine(), ROW, 16)


def test_the_norm_of_gradients_is_deepspeed_s_own():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(size, generator=generator).bfloat16() for size in (3, 1000, 64)]
    assert _norm(gradients) == pytest.approx(get_weight_norm(gradients), rel=1e-6)
    gradients[1][5] = float("nan")
    assert _norm(gradients) == get_weight_norm(gradients) == -1


@pytest.mark.parametrize(
    ("made", "row", "said"),
    [
        ({"stage": 1}, {}, "ZeRO stage 1, the row asks for 0"),
        ({"replicas": 2}, {}, "data-parallel size 2"),
        ({"shards": 2}, {}, "tensor-parallel size 2"),
        ({"micro_batch": 8}, {}, "micro-batch 8, the row asks for 4"),
        ({"accumulated": 1}, {}, "gradient accumulation 1"),
        ({}, {"gpus_per_node": 2}, "world size 1, the row asks for 2"),
    ],
)
def test_another_strategy_is_refused(alone, made, row, said):
    with pytest.raises(RuntimeError, match=said):
        _check_strategy(engine(**made), {**ROW, **row}, 16)


def test_steps_on_a_gpu_are_timed_by_events(monkeypatch):
    """With events in place of CUDA's, which tell milliseconds: one per step, none waited for."""

    class Event:
        recorded = 0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            Event.recorded += 1
            self.at_ms = 10.0 * Event.recorded**2

        def elapsed_time(self, later):
            return later.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = _StepClock(torch.device("cuda"))
    clock.start()
    for _ in range(3):
        clock.mark()
    assert clock.count == 3
    assert clock.times_s() == pytest.approx([0.030, 0.050, 0.070])


def test_other_samples_than_the_layout_s_fail_the_run(alone, small_dataset):
    data = read_dataset(small_dataset, ROW)
    batches = Batches(data, ROW, 0, 1, torch.device("cpu"))
    taken = [batches.indices(step, micro).tobytes() for step in range(3) for micro in range(2)]
    run = SimpleNamespace(layout=Layout(0, 1, 1), batches=batches, row=ROW, taken=taken)
    assert len(Trainer.check_data(run)) == 16
    run.taken = [taken[1], taken[0], *taken[2:]]
    with pytest.raises(RunFailure, match="rank 0 trained on other samples than replica 0's") as caught:
        Trainer.check_data(run)
    assert caught.value.code == "data_order"
