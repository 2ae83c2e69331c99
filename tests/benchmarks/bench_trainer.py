"""The trainer's step beside a plain PyTorch loop of the same model, batch and precision; what a job costs before it.

    python tests/benchmarks/bench_trainer.py [--sizes tiny small] [--processes 8] [--seconds 10] [--startup 3]

Both loops live in one process and take turns step by step; which of them begins alternates. How their memory happens
to lie makes one of them faster by some per cent, so it is repeated in fresh processes, where the other is built first.
Printed is the median ratio of the two step times, with a 95 % interval: a bootstrap over processes, then pairs. What
is measured is kept in trainer.json and shown in trainer.md. Exit code 1 where the trainer is slower than the limit.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jouleline.campaign.config import PROTOCOL_DEFAULTS
from jouleline.campaign.grid import complete_row
from jouleline.measure.node import gpus
from jouleline.measure.node.environment import cpu_name
from jouleline.measure.train.corpus import prepare
from jouleline.measure.train.data import Batches, Dataset, read_dataset
from jouleline.measure.train.modeling import Recipe, build
from jouleline.measure.train.parallel import Layout, join
from jouleline.measure.train.trainer import Trainer

HERE = Path(__file__).parent
LIMIT = 0.03
VOCABULARY = 8192
WARM_UP, LEAST_PAIRS = 5, 6
SHAPE = ("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch")
SIZES = {
    "tiny": dict(zip(SHAPE, (2, 128, 2, 512, 64, 8))),
    "small": dict(zip(SHAPE, (4, 256, 4, 1024, 128, 8))),
}
GPU_SIZES = {"base": dict(zip(SHAPE, (12, 768, 12, 3072, 128, 32)))}
# Steps of some 30 ms on a CPU, in which DeepSpeed's own work (norms, hooks) is no small part: shown, not judged.
NOT_JUDGED = ("tiny",)
STARTUP_ROW = {**SIZES["tiny"], "vocab_size": VOCABULARY}
STARTUP_PROTOCOL = {"window_s": 1.0, "idle_s": 1.0, "meter": "estimate"}


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


def step_s(loop, device: torch.device) -> float:
    """Time of one step in seconds: on a GPU by the wall clock, on a CPU, where one thread computes, the process's own
    time, in which busy neighbours do not count."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    begin = clock()
    loop.train_step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begin


def pairs_of_one_process(row: dict, dataset: Path, number: int, seconds: float, results) -> None:
    """Put the step times of (trainer, plain), taken in turns for about `seconds`, into the queue `results`."""
    torch.set_num_threads(1)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    join(0, 1, 0, dist.TCPStore("127.0.0.1", 0, 1, is_master=True), device, 60)
    data = read_dataset(dataset, row)
    make = {
        "trainer": lambda: Trainer(row, PROTOCOL_DEFAULTS, data, Layout(0, 1, 1), device),
        "plain": lambda: PlainLoop(row, data, device),
    }
    loops = {name: make[name]() for name in sorted(make, reverse=bool(number % 2))}
    for _ in range(WARM_UP):
        for loop in loops.values():
            step_s(loop, device)
    times: dict[str, list[float]] = {name: [] for name in loops}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times["plain"]) < LEAST_PAIRS:
        for name in sorted(loops, reverse=bool(len(times["plain"]) % 2)):
            times[name].append(step_s(loops[name], device))
    results.put((times["trainer"], times["plain"]))


def compare(row: dict, dataset: Path, processes: int, seconds: float) -> dict[str, float]:
    """Median ratio trainer / plain with its interval, the two step times in seconds, pairs and processes."""
    context = multiprocessing.get_context("fork")  # libraries are imported once
    found = []
    for number in range(processes):
        results = context.SimpleQueue()
        child = context.Process(target=pairs_of_one_process, args=(row, dataset, number, seconds, results))
        child.start()
        found.append(results.get())
        child.join()
    ratios = [np.array(trainer) / np.array(plain) for trainer, plain in found]
    low, high = interval(ratios)
    return {
        "ratio": float(np.median([np.median(one) for one in ratios])),
        "low": low,
        "high": high,
        "trainer_s": float(np.median(np.concatenate([trainer for trainer, _ in found]))),
        "plain_s": float(np.median(np.concatenate([plain for _, plain in found]))),
        "pairs": sum(map(len, ratios)),
        "processes": processes,
        "load": os.getloadavg()[0],
    }


def interval(ratios: Sequence[np.ndarray], draws: int = 2000) -> tuple[float, float]:
    """95 % of the median over processes of the median over pairs, processes and pairs drawn again."""
    generator = np.random.default_rng(0)
    medians = np.array([np.median(generator.choice(one, (draws, len(one))), axis=1) for one in ratios])
    drawn = generator.integers(0, len(ratios), (draws, len(ratios)))
    middle = np.median(medians[drawn.T, np.arange(draws)], axis=0)
    low, high = np.percentile(middle, [2.5, 97.5])
    return float(low), float(high)


def startup(dataset: Path, repeats: int) -> dict[str, float]:
    """Median seconds of each part of a whole job of a small model, from its run.json."""
    script = HERE.parents[1] / "scripts" / "measure_run.py"
    arguments = ["--run-id", "startup", "--row", json.dumps(STARTUP_ROW), "--code-digest", "0"]
    arguments += ["--protocol", json.dumps(STARTUP_PROTOCOL), "--dataset", str(dataset)]
    parts: list[dict[str, float]] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, script, *arguments, "--out-dir", folder], check=True, capture_output=True
            )
            wall_s = time.perf_counter() - begin
            run = json.loads((Path(folder) / "run.json").read_text())
        training = run["training"]
        known = {
            **training["startup_s"],
            "warm-up": sum(training["warmup_step_times_s"]),
            "window": training["time_s"],
            "evaluation": training["evaluation_s"],
        }
        rest = {"the rest (idle baseline, merging)": wall_s - sum(known.values()), "whole job": wall_s}
        parts.append({**known, **rest})
    return {name: float(np.median([part[name] for part in parts])) for name in parts[0]}


def main(argv: Sequence[str] | None = None) -> int:
    """Compare every size and precision; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", help="default: all of this device")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "bf16"])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of pairs in each process")
    parser.add_argument("--startup", type=int, default=3, help="jobs whose start-up is taken apart")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of trainer.json and trainer.md")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # this process forks others that use CUDA
    cuda = torch.cuda.is_available()
    sizes = {**SIZES, **(GPU_SIZES if cuda else {})}
    kept = arguments.out / "trainer.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    results |= {"machine": gpus.job_gpus()[0].name if cuda else cpu_name(), "torch": torch.__version__}
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset.parquet"
        prepare("docstrings", VOCABULARY, 0, dataset, Path(folder) / "tokenizer.json")
        measure = partial(compare, dataset=dataset, processes=arguments.processes, seconds=arguments.seconds)
        for name in sizes if arguments.sizes is None else arguments.sizes:
            for precision in arguments.precisions:
                row = complete_row({**sizes[name], "vocab_size": VOCABULARY, "precision": precision})
                found = results.setdefault("steps", {})[f"{name} {precision}"] = measure(row)
                slow |= name not in NOT_JUDGED and found["ratio"] > 1 + LIMIT
                print(line(f"{name} {precision}", found), flush=True)
                keep(results, arguments.out)
        if arguments.startup:
            results["startup_s"] = startup(dataset, arguments.startup)
            keep(results, arguments.out)
    if slow:
        print(f"error: the trainer is more than {LIMIT:.0%} slower than a plain loop", file=sys.stderr)
    return int(slow)


def keep(results: dict, folder: Path) -> None:
    """Write trainer.json and trainer.md."""
    (folder / "trainer.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "trainer.md").write_text(page(results))


def verdict(name: str, found: dict) -> str:
    """What the interval says of the limit."""
    if name.split()[0] in NOT_JUDGED:
        return "not judged"
    if found["low"] > 1 + LIMIT:
        return "slower"
    return "within" if found["high"] <= 1 + LIMIT else "undecided"


def line(name: str, found: dict) -> str:
    """One row of the table."""
    return (
        f"| {name} | {found['trainer_s'] * 1e3:.1f} | {found['plain_s'] * 1e3:.1f} | {found['ratio']:.3f} "
        f"| {found['low']:.3f} to {found['high']:.3f} | {found['pairs']} in {found['processes']} "
        f"| {found['load']:.0f} | {verdict(name, found)} |"
    )


def page(results: dict) -> str:
    """trainer.md from trainer.json."""
    shapes = "; ".join(
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in shape.items())
        for name, shape in {**SIZES, **GPU_SIZES}.items()
    )
    rows = [line(name, found) for name, found in results.get("steps", {}).items()]
    parts = [f"| {name} | {seconds:.2f} |" for name, seconds in results.get("startup_s", {}).items()]
    return f"""# The trainer beside a plain PyTorch loop

Made by `make bench-trainer` on {results["machine"]}, torch {results["torch"]}. The ratio is the step time of the
trainer (DeepSpeed, one rank, ZeRO 0) over that of a loop of nothing but PyTorch with the same model, data, dropout,
attention kernel, AdamW and clipping; the bar is {LIMIT:.0%}. On a CPU the times are CPU time of the process, and
the load average says how busy its neighbours were: beyond the number of cores the interval gets wide.

| size | trainer, ms | plain loop, ms | ratio | 95 % interval | pairs in processes | load | within {LIMIT:.0%}? |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Shapes ({shapes}).

## What a job costs beside its window

Seconds of a whole job of the tiny model with a window and idle baselines of 1 s each, median of some jobs, by the parts
that every run.json has in `training`. `python`, `imports`, `meeting`, `data` and `model` are over before the device is
taken and the sidecar starts: no energy of theirs is measured.

| part | s |
|---|---|
{chr(10).join(parts)}
"""


if __name__ == "__main__":
    raise SystemExit(main())
