"""How long fitting and predicting take, on synthetic tables with known constants; fails where a bar is missed.

Bars: a full fit of paper, roofline and hybrid on 500 rows from 64 starts 60 s; 1000 bootstrap refits 600 s;
100,000 predictions 1 s; `jouleline fit` of tables of three devices: 562 rows, five models on five splits 180 s; 30,000
rows, three models on three splits 900 s and 4 GiB. The CPU time beside it tells a busy machine from a slow fit.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import synthetic
from jouleline.model.fit.configurations import predict_table
from jouleline.model.fit.fitting import fit_split
from jouleline.model.judge.splits import split_runs
from jouleline.model.table.runs import write_runs

ROWS, STARTS, DRAWS, PREDICTIONS = 500, 64, 1000, 100_000
TABLES = {
    "table": (562, "hybrid roofline paper gaussian_process gradient_boosting", "H0 H1 H3 H5 H6", 180),
    "long": (30_000, "hybrid roofline gradient_boosting", "H0 H1 H5", 900),
}
"""Rows, models, splits and seconds; beside the splits named, `all` is fitted for the model that is shipped."""

MEMORY_GIB = 4
DEVICES = ("NVIDIA A100-SXM4-80GB", "NVIDIA H100-SXM5-80GB", "NVIDIA V100-SXM2-32GB")
COUNTS = ((1, 1, 0), (2, 1, 1), (2, 1, 3), (3, 1, 1), (4, 1, 3), (4, 2, 1), (6, 1, 1))


def main() -> int:
    """Print every time beside its bar; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS, help="bootstrap draws")
    parser.add_argument("--only", choices=("law", *TABLES), help="one part alone")
    args = parser.parse_args()
    parts = [args.only] if args.only else ["law", *TABLES]
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    missed = sum(law(args.draws) if part == "law" else long_table(*TABLES[part]) for part in parts)
    return 1 if missed else 0


def law(draws: int) -> int:
    """One device in this process; how many bars are missed."""
    columns = synthetic.table(ROWS, seed=7)
    split = split_runs(columns, "all", {})
    plain = {"starts": STARTS, "bootstrap": 0, "profile": False}
    fits, seconds = {}, {}
    for model in ("paper", "roofline", "hybrid"):
        seconds[model], fits[model] = timed(lambda m=model: fit_split(columns, split, m, None, plain))
    with_draws, _ = timed(lambda: fit_split(columns, split, "roofline", None, plain | {"bootstrap": draws}))
    measured = [("fit of three models, 500 rows, 64 starts", sum(seconds.values()), 60)]
    measured.append((f"{draws} bootstrap refits of the roofline", with_draws - seconds["roofline"], 600))
    many = configurations(columns)
    for model in ("roofline", "hybrid"):
        fit = json.loads(json.dumps(fits[model]))
        predict_table(fit, {name: values[:10] for name, values in many.items()}, "warm-up")
        taken, table = timed(lambda fit=fit: predict_table(fit, many, "many"))
        assert len(table["predicted_energy_j"]) == PREDICTIONS
        measured.append((f"{PREDICTIONS} predictions by {model}", taken, 1))
    for name, taken, bar in measured:
        print(f"{name:45s} {taken:8.2f} s   bar {bar} s   {'ok' if taken <= bar else 'MISSED'}")
    print("of which", ", ".join(f"{model} {taken:.2f} s" for model, taken in seconds.items()))
    return sum(taken > bar for _, taken, bar in measured)


def long_table(rows: int, models: str, splits: str, bar: int) -> int:
    """`jouleline fit` as a user starts it; how many bars are missed."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "runs.parquet"
        write_runs(three_devices(rows), table)
        command = [sys.executable, "-m", "jouleline.commands.main", "fit", table, "--out", folder]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command += ["--models", *models.split(), "--splits", *splits.split()]
        taken, _ = timed(lambda: subprocess.run(command, check=True))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    workers = min(len(os.sched_getaffinity(0)), len(splits.split()) + 1) + 1
    memory = workers * after.ru_maxrss / 2**20  # no process has more than the largest
    ok = taken <= bar and memory <= MEMORY_GIB
    print(
        f"{rows} rows, {models} on {splits}: {taken:.0f} s ({cpu:.0f} s of CPU), at most {memory:.1f} GiB in"
        f" {workers} processes   bar {bar} s, {MEMORY_GIB} GiB   {'ok' if ok else 'MISSED'}",
        flush=True,
    )
    return not ok


def three_devices(rows: int) -> dict[str, np.ndarray]:
    """A table of three devices with data sheets and one to six of them, in equal parts."""
    parts = []
    for number, device in enumerate(DEVICES):
        moved = {"peak_flops": 0.8, "memory_bandwidth": 0.4, "static_power_w": 0.3}
        truth = {n: value + number * moved.get(n, 0.0) for n, value in synthetic.TRUTH.items()}
        count = rows // 3 + (number < rows % 3)
        parts.append(
            synthetic.table(
                count, seed=number, device=device, source="outside", truth=truth, strategies=COUNTS
            )
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return columns | {"run_id": np.array([f"run-{row:06d}" for row in range(rows)], dtype=object)}


def timed(call):
    """(seconds, result)."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def configurations(columns) -> dict[str, np.ndarray]:
    """Rows drawn from a table's own configurations."""
    rows = np.random.default_rng(0).integers(0, ROWS, PREDICTIONS)
    names = (
        "device",
        "device_count",
        "tensor_parallel",
        "zero_stage",
        "layers",
        "hidden",
        "heads",
        "intermediate",
    )
    names += ("seq_len", "micro_batch", "precision", "vocab_size", "attention")
    return {name: columns[name][rows] for name in names}


if __name__ == "__main__":
    raise SystemExit(main())
