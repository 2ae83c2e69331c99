"""The trainer's step beside a plain PyTorch loop of the same model, batch, precision and optimizer.

    python tests/benchmarks/bench_trainer.py [--rounds 15] [--limit 0.03]

The two take turns, a few steps each, on one device; which of them begins alternates. Printed is the median over the
rounds of the ratio of their times, with a 95 % interval (bootstrap). Exit code 1 where the trainer is slower by
more than the limit. The energy that is measured must be that of the work, and not of our loop.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jouleline.config import PROTOCOL_DEFAULTS
from jouleline.grid import complete_row
from jouleline.measure.corpus import prepare
from jouleline.measure.data import Batches, Dataset, read_dataset
from jouleline.measure.modeling import Recipe, build
from jouleline.measure.parallel import Layout, join
from jouleline.measure.trainer import Trainer

SIZES = {
    "tiny": {"layers": 2, "hidden": 128, "heads": 2, "intermediate": 512, "seq_len": 64, "micro_batch": 8},
    "small": {
        "layers": 4,
        "hidden": 256,
        "heads": 4,
        "intermediate": 1024,
        "seq_len": 128,
        "micro_batch": 16,
    },
}
# Steps of some 40 ms, where DeepSpeed's own work per step (norms, checks, hooks) shows: printed, not judged.
NOT_JUDGED = ("tiny",)
GPU_SIZES = {
    "base": {
        "layers": 12,
        "hidden": 768,
        "heads": 12,
        "intermediate": 3072,
        "seq_len": 128,
        "micro_batch": 32,
    }
}


class PlainLoop:
    """What the trainer is compared with: nothing but PyTorch."""

    def __init__(self, row: dict, data: Dataset, device: torch.device):
        recipe = Recipe()
        # As DeepSpeed holds it: weights of the precision, and, where that is not fp32, a master copy in fp32.
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[row["precision"]]
        self.model = build(row, data.num_labels, data.facts["pad_id"], recipe).to(device, self.dtype)
        self.weights = list(self.model.parameters())
        self.masters = self.weights
        if self.dtype != torch.float32:
            self.masters = [weight.detach().float() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=row["learning_rate"], weight_decay=recipe.weight_decay
        )
        self.clip = recipe.clip
        self.batches = Batches(data, row, 0, 1, device)
        self.steps = 0

    def train_step(self) -> None:
        _, inputs = self.batches.train(self.steps, 0)
        self.model(**inputs).loss.backward()
        if self.masters is not self.weights:
            for master, weight in zip(self.masters, self.weights, strict=True):
                master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.masters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters is not self.weights:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.masters)
        self.steps += 1


def block_s(loop, steps: int, device: torch.device) -> float:
    """Time of `steps` steps in seconds: on a GPU by the wall clock, on a CPU, where one thread computes, the
    process's own time, in which busy neighbours do not count."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    begin = clock()
    for _ in range(steps):
        loop.train_step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begin


def compare(row: dict, data: Dataset, device: torch.device, rounds: int, steps: int) -> dict[str, float]:
    """Median ratio trainer / plain with its interval, and the two step times in seconds."""
    trainer = Trainer(row, PROTOCOL_DEFAULTS, data, Layout(0, 1, 1), device)
    loops = {"trainer": trainer, "plain": PlainLoop(row, data, device)}
    times = {name: [] for name in loops}
    for loop in loops.values():
        block_s(loop, steps, device)
    for number in range(rounds):
        for name in sorted(loops, reverse=bool(number % 2)):
            times[name].append(block_s(loops[name], steps, device) / steps)
    ratios = np.array(times["trainer"]) / np.array(times["plain"])
    drawn = np.random.default_rng(0).choice(ratios, (2000, rounds))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {
        "ratio": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
        **{f"{name}_s": statistics.median(values) for name, values in times.items()},
    }


def main() -> int:
    """Compare every size and precision; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--limit", type=float, default=0.03)
    parser.add_argument("--sizes", nargs="*")
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
    join(0, 1, 0, store, device, 60)
    sizes = {**SIZES, **(GPU_SIZES if cuda else {})}
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        prepare("docstrings", 8192, 0, Path(folder) / "dataset.parquet", Path(folder) / "tokenizer.json")
        for name in arguments.sizes or sizes:
            for precision in ("fp32", "bf16"):
                row = complete_row({**sizes[name], "vocab_size": 8192, "precision": precision})
                data = read_dataset(Path(folder) / "dataset.parquet", row)
                found = compare(row, data, device, arguments.rounds, arguments.steps)
                slow |= name not in NOT_JUDGED and found["ratio"] > 1 + arguments.limit
                print(
                    f"{name:6} {precision}  trainer {found['trainer_s'] * 1e3:8.2f} ms  plain "
                    f"{found['plain_s'] * 1e3:8.2f} ms  ratio {found['ratio']:.3f} "
                    f"[{found['low']:.3f}, {found['high']:.3f}]",
                    flush=True,
                )
    if slow:
        print(
            f"error: the trainer is more than {arguments.limit:.0%} slower than a plain loop", file=sys.stderr
        )
    return int(slow)


if __name__ == "__main__":
    raise SystemExit(main())
