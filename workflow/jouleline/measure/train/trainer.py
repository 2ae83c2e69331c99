"""What one rank does: warm up, train a measured window, evaluate outside it, and report what was done.

The window holds only training. Rank 0 fixes the number of steps before it. Losses stay on the device. CUDA events time
the steps on a GPU, and the host's clock on a CPU. A rank waits for another only in the collectives of its own strategy.
"""

import math
import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import InitVar, dataclass, field
from statistics import median
from typing import Any, TextIO

import torch
import torch.distributed as dist

from jouleline.measure.node.cpus import ForeignLoad
from jouleline.measure.node.environment import temperature_c
from jouleline.measure.node.failures import RunFailure
from jouleline.measure.raw.markers import region, step
from jouleline.measure.train import rules
from jouleline.measure.train.attention import Seen, answer_from_data, attention_seen
from jouleline.measure.train.data import Batches, Dataset, digest
from jouleline.measure.train.modeling import Recipe, build
from jouleline.measure.train.parallel import Layout, start_engine
from jouleline.measure.train.tensor_parallel import predictions

DIGEST_STEPS = 10  # the digest of the data order covers the steps that every run has


@dataclass
class Trainer:
    """One rank's model, data and record.

    `tick_s` is the meter's period where known. Rank 0 writes a line per phase to `progress`. `model` is the result of
    `build` for the row on the CPU, if that was done before.
    """

    row: Mapping[str, Any]
    protocol: Mapping[str, Any]
    data: Dataset
    layout: Layout
    device: torch.device
    recipe: Recipe = field(default_factory=Recipe)
    tick_s: float | None = None
    progress: TextIO | None = None
    model: InitVar[torch.nn.Module | None] = None

    def __post_init__(self, model: torch.nn.Module | None):
        self.startup_s: dict[str, float] = {}
        if model is None:
            model = build(self.row, self.data.num_labels, self.data.facts["pad_id"], self.recipe)
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        with self._startup("engine"):
            self.engine = start_engine(model.to(self.device), self.row, self.recipe)
        self.parameters = sum(size for size, _ in counts)
        self.trainable_parameters = sum(size for size, trained in counts if trained)
        self.batches = Batches(self.data, self.row, self.layout.replica, self.layout.replicas, self.device)
        self.losses: list[torch.Tensor] = []
        self.foreign_cores: float | None = None
        self.attention = Seen()
        answer_from_data(self.data)
        self.taken: list[bytes] = []
        # Replicas drop different units. The ranks of one tensor-parallel group must drop the same.
        torch.manual_seed(self.row["seed"] * 100_003 + self.layout.replica)

    @contextmanager
    def _startup(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.startup_s[name] = round(time.perf_counter() - begin, 3)

    def run(self) -> dict[str, Any]:
        """The whole measured fine-tuning. Returns the `training` part of run.json (complete on every rank).

        Raises RunFailure where the loss is not finite or the ranks trained on the wrong data.
        """
        with region("run"):
            with region("warmup"):
                warmup_s = self.warm_up()
            steps = self.agree(rules.window_steps(self._recent(warmup_s), self._seconds(), self.protocol))
            self._say(f"warm-up of {len(warmup_s)} steps done, measuring {steps} steps")
            skipped = self.engine.skipped_steps  # fp16 skips the update where a gradient overflowed
            others = ForeignLoad(os.getppid(), os.sched_getaffinity(0))
            dist.barrier()
            times_s, time_s = self.window(steps)
            self.foreign_cores = others.cores()
            self._check_finite()
            self._say(f"measured {len(times_s)} steps in {time_s:.2f} s")
            begin = time.perf_counter()
            with region("evaluation"):
                evaluation = self.evaluate()
            evaluation_s = round(time.perf_counter() - begin, 3)
        record = self._record(warmup_s, times_s, time_s, {**evaluation, "evaluation_s": evaluation_s})
        return {**record, "skipped_steps": self.engine.skipped_steps - skipped}

    def train_step(self) -> None:
        """One optimizer step. Its loss (mean over micro-steps, of this replica) stays on the device."""
        total = None
        number = len(self.losses)
        for micro in range(self.row["grad_accum"]):
            chosen, inputs = self.batches.train(number, micro)
            loss = self.engine(**inputs).loss
            self.engine.backward(loss)
            self.engine.step()
            total = loss.detach() if total is None else total + loss.detach()
            self.taken.append(chosen.tobytes())
        self.losses.append(total / self.row["grad_accum"])

    def warm_up(self) -> list[float]:
        """Train until the step time is steady. Returns the step times in seconds, taken by waiting for the device after
        each step. Rank 0 decides for all."""
        times_s: list[float] = []
        while True:
            for _ in range(max(self.protocol["warmup_steps"], 1)):
                begin = time.perf_counter()
                with nullcontext(self.attention) if times_s else attention_seen() as self.attention:
                    self.train_step()
                self._wait_for_device()
                times_s.append(time.perf_counter() - begin)
            self._check_finite()
            if self.agree(int(rules.warmup_is_over(times_s, self.protocol, self._temperature_c()))):
                return times_s

    def window(self, steps: int) -> tuple[list[float], float]:
        """The measured window: step times and total time in seconds."""
        clock = _StepClock(self.device)
        with region("window"):
            begin = clock.start()
            while steps:
                for _ in range(steps):
                    self.train_step()
                    step()
                    clock.mark()
                self._wait_for_device()
                time_s = time.perf_counter() - begin
                done = clock.count
                steps = self.agree(rules.more_steps(time_s, done, self._seconds(), self.protocol))
        return clock.times_s(), time_s

    def evaluate(self) -> dict[str, float | None]:
        """Loss and share of correct answers on held-out samples. None where the protocol asks for no evaluation."""
        self.engine.eval()
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)  # correct, asked, loss, batches
        with torch.no_grad():
            for number in range(self.batches.evaluation_batches(self.protocol["eval_batches"])):
                counted, inputs = self.batches.evaluate(number)
                output = self.engine(**inputs)
                asked = torch.from_numpy(counted).to(self.device)
                right = _right(self.row["task"], self.engine.module, output, inputs, asked)
                sums += torch.stack([*right, output.loss.detach().double(), torch.ones_like(sums[0])])
        dist.all_reduce(sums)
        right, asked, loss, batches = sums.tolist()
        return {
            "accuracy": right / asked if asked else None,
            "eval_loss": loss / batches if batches and math.isfinite(loss) else None,
        }

    def agree(self, number: int) -> int:
        """Rank 0's `number`, on every rank."""
        value = torch.tensor([number], dtype=torch.int64, device=self.device)
        dist.broadcast(value, 0)
        return int(value.item())

    def mean_losses(self) -> list[float]:
        """The loss of every step so far, averaged over all ranks."""
        losses = torch.stack(self.losses).double()
        dist.all_reduce(losses)
        return (losses / self.layout.world_size).tolist()

    def _check_finite(self) -> None:
        losses = self.mean_losses()
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise RunFailure(
                    "loss_not_finite", f"the loss of step {number} is {loss}; lower learning_rate"
                )

    def check_data(self) -> str:
        """Digest of the samples of the first steps in their global order. It is the same for every strategy with the
        same global batch. Raises RunFailure unless every rank took the samples of its place in the layout in all
        steps."""
        gathered: list[Any] = [None] * self.layout.world_size
        dist.all_gather_object(gathered, self.taken)
        micro_steps = len(self.taken)
        accumulated = self.row["grad_accum"]
        order = []
        for taken in range(micro_steps):
            for rank in range(self.layout.world_size):
                replica = rank // self.layout.tensor_parallel
                wanted = self.batches.indices(*divmod(taken, accumulated), replica).tobytes()
                if gathered[rank][taken] != wanted:
                    raise RunFailure(
                        "data_order", f"rank {rank} trained on other samples than replica {replica}'s"
                    )
                if rank % self.layout.tensor_parallel == 0 and taken < DIGEST_STEPS * accumulated:
                    order.append(wanted)
        return digest(order)

    def _record(
        self, warmup_s: list[float], times_s: list[float], time_s: float, evaluation: Mapping[str, Any]
    ) -> dict[str, Any]:
        losses, samples = self.mean_losses(), self.batches.global_batch * len(times_s)
        peaks: list[Any] = [None] * self.layout.world_size
        dist.all_gather_object(peaks, self._peak_memory_byte())
        return {
            "world_size": dist.get_world_size(),
            "data_parallel": self.layout.replicas,
            "tensor_parallel": self.layout.tensor_parallel,
            "global_batch": self.batches.global_batch,
            "warmup_rule": rules.STEADY_RULE,
            "warmup_steps": len(warmup_s),
            "warmup_steady": rules.is_steady(warmup_s, self.protocol),
            "warmup_step_times_s": [round(value, 6) for value in warmup_s],
            "window_target_s": self._seconds(),
            "steps": len(times_s),
            "time_s": time_s,
            "step_times_s": [round(value, 6) for value in times_s],
            "samples": samples,
            "tokens": samples * self.row["seq_len"],
            "loss_warmup_first": losses[0],
            "loss_first": losses[len(warmup_s)],
            "loss_last": losses[-1],
            **evaluation,
            "attention_kernels": sorted(self.attention.kernels),
            "attention_causal_half_share": self.attention.causal_half_share,
            "num_labels": self.data.num_labels,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "peak_memory_byte": max(peaks),
            "batch_digest": self.check_data(),
        }

    def _seconds(self) -> float:
        return rules.window_seconds(self.protocol, self.tick_s)

    def _recent(self, times_s: list[float]) -> float:
        return median(times_s[-max(self.protocol["warmup_steps"], 1) :])

    def _temperature_c(self) -> float | None:
        """The highest temperature on rank 0's node, because rank 0 decides. None where the protocol does not ask."""
        asked = self.protocol["start_temperature_min_c"] is not None and self.layout.rank == 0
        return temperature_c(self.device.type) if asked else None

    def _wait_for_device(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _peak_memory_byte(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _say(self, text: str) -> None:
        if self.layout.rank == 0 and self.progress:
            print(f"jouleline: {text}", file=self.progress, flush=True)


class _StepClock:
    """Times of steps in seconds: by events on a GPU's stream, which cause no stall, else by the host's clock."""

    def __init__(self, device: torch.device):
        self.events = device.type == "cuda"
        self.marks: list[Any] = []

    def start(self) -> float:
        self.mark()
        return time.perf_counter()

    def mark(self) -> None:
        if self.events:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    @property
    def count(self) -> int:
        return len(self.marks) - 1

    def times_s(self) -> list[float]:
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if self.events:
            return [before.elapsed_time(after) / 1000 for before, after in pairs]
        return [after - before for before, after in pairs]


def _right(
    task: str,
    model: torch.nn.Module,
    output: Any,
    inputs: Mapping[str, torch.Tensor],
    counted: torch.Tensor,
) -> list[torch.Tensor]:
    """How many answers are correct and how many were asked: samples (classification; a span with both ends correct),
    masked tokens, or next tokens."""
    if "labels" in inputs:
        labels, found = inputs["labels"], predictions(model, output.logits)
        if task == "clm":
            labels, found = labels[:, 1:], found[:, :-1]
        asked = (labels >= 0) & (counted if labels.dim() == 1 else counted[:, None])
        right = (found == labels) & asked
    else:
        asked = counted
        right = counted & (output.start_logits.argmax(-1) == inputs["start_positions"])
        right &= output.end_logits.argmax(-1) == inputs["end_positions"]
    return [right.sum().double(), asked.sum().double()]
