"""How the workflow scales: parse, dry run, no-op, one more row, and the tables of ten thousand finished runs.

Prints one line per grid size: wall time (s) and peak resident memory (MB) of `snakemake -n` on a fresh campaign, on a
finished one (nothing to do), and on a finished one with one row more. Then the time and memory of the steps that make
the tables of many finished runs. Exits 1 where a bar is missed: a dry run of 10,000 rows within 20 s, the tables of
10,000 runs within 60 s and 2 GiB.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jouleline import grid

from tests.workflow.checkout import Checkout

SIZES = (100, 1000, 10_000, 50_000)
BAR_DRY_RUN_S, BAR_TABLES_S, BAR_TABLES_MB = 20, 60, 2048


def campaign(rows: int) -> dict:
    """A campaign of so many rows: 100 shapes by sequence lengths, batches and seeds."""
    axes = {"layers": list(range(1, 11)), "hidden": [64 * i for i in range(1, 11)]}
    axes["seed"] = list(range(rows // 100))
    fixed = {"vocab_size": 2048, "seq_len": 32, "micro_batch": 4, "heads": 4, "intermediate": 256}
    block = {"axes": axes, "set": fixed}
    shards = max(4, rows // 500)
    settings = {
        "campaign": "bench",
        "node": {"gpus": 4},
        "protocol": {"device": "cpu"},
        "analysis": {"shards": shards},
    }
    return {**settings, "grid": {"blocks": [block]}}


def measure(command: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Run a command; wall and CPU time (s), peak resident memory (MB), and what it printed."""
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        out.seek(0)
        text = out.read().decode(errors="replace")
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-2000:]}")
    return wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text


def dry_run(checkout: Checkout, target: str = "measurements") -> tuple[float, float, float, str]:
    binary = Path(sys.executable).with_name("snakemake")
    command = [
        str(binary),
        "-n",
        "--quiet",
        "rules",
        "--cores",
        "2",
        "--configfile",
        "campaign.yaml",
        "--",
        target,
    ]
    return measure(command, checkout.root)


def finish(checkout: Checkout) -> list[grid.Run]:
    """Give every run of the campaign its (empty) output files, and the data set before them."""
    runs = grid.expand(checkout.campaign["grid"], "cpu", 4)
    dataset = checkout.root / "results/bench/dataset"
    dataset.mkdir(parents=True)
    for name in ("docstrings-v2048.parquet", "docstrings-v2048.tokenizer.json"):
        (dataset / name).touch()
    for run in runs:
        folder = checkout.root / "results/bench/runs" / run.run_id
        folder.mkdir(parents=True)
        for name in ("samples.parquet", "markers.parquet", "run.json"):
            (folder / name).touch()
    return runs


def bench_grid(rows: int, folder: Path) -> dict[str, float]:
    checkout = Checkout(folder / f"grid-{rows}", campaign(rows))
    results = {}
    results["dry_run_s"], results["dry_run_cpu_s"], results["dry_run_mb"], text = dry_run(checkout)
    assert str(rows) in text, text
    finish(checkout)
    results["no_op_s"], results["no_op_cpu_s"], results["no_op_mb"], text = dry_run(checkout)
    assert "Nothing to be done" in text, text[-2000:]
    checkout.campaign["grid"]["rows"] = [
        {**checkout.campaign["grid"]["blocks"][0]["set"], "layers": 12, "hidden": 64}
    ]
    checkout.save()
    results["one_more_s"], results["one_more_cpu_s"], results["one_more_mb"], text = dry_run(checkout)
    assert "measure_run           1" in " ".join(text.split("\n")) or "measure_run" in text, text[-2000:]
    shutil.rmtree(checkout.root)
    return results


def bench_tables(source: Path, rows: int, folder: Path) -> dict[str, float]:
    """Tables of so many copies of one finished run, by the commands of the rules, on all cores."""
    checkout = Checkout(folder / "tables", campaign(rows))
    runs = grid.expand(checkout.campaign["grid"], "cpu", 4)
    record = json.loads((source / "run.json").read_text())
    base = checkout.root / "results/bench/runs"
    for run in runs:
        target = base / run.run_id
        target.mkdir(parents=True)
        for name in ("samples.parquet", "markers.parquet"):
            os.link(source / name, target / name)
        (target / "run.json").write_text(json.dumps(record | {"run_id": run.run_id, "row": run.row}))
    grid.write(runs, "bench", base.parent / "grid.json")
    python = sys.executable
    count = checkout.campaign["analysis"]["shards"]
    shards: dict[int, list[str]] = {}
    for run in runs:
        shards.setdefault(grid.shard_of(run.run_id, count), []).append(
            f"results/bench/runs/{run.run_id}/run.json"
        )
    energies = [f"results/bench/energy/shard-{shard}.parquet" for shard in sorted(shards)]
    tables = "results/bench/tables"
    commands = [
        ["integrate_energy", "--runs", *shards[shard], "--out", energy]
        for shard, energy in zip(sorted(shards), energies)
    ]
    outputs = ["--runs", f"{tables}/runs.parquet", "--regions", f"{tables}/regions.parquet"]
    inputs = ["--grid", "results/bench/grid.json", "--runs-dir", "results/bench/runs", "--energy", *energies]
    commands += [
        ["collect_runs", *inputs, *outputs, "--dictionary", f"{tables}/data_dictionary.md"],
        ["check_runs", *outputs, "--protocol", "{}", "--out", f"{tables}/checks.parquet"],
    ]

    def run_step(command: list[str]) -> tuple[str, float, float]:
        name, *arguments = command
        _, cpu_s, mb, _ = measure([python, f"scripts/{name}.py", *arguments], checkout.root)
        return name, cpu_s, mb

    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # shards side by side, as snakemake runs them
        done = list(pool.map(run_step, commands[:-2]))
    done += [run_step(command) for command in commands[-2:]]
    results = {"tables_s": time.monotonic() - began, "tables_mb": max(mb for _, _, mb in done)}
    for name, cpu_s, _ in done:
        results[f"{name}_cpu_s"] = results.get(f"{name}_cpu_s", 0.0) + cpu_s
    shutil.rmtree(checkout.root)
    return results


def one_finished_run(folder: Path) -> Path:
    """A real run of the smallest row, measured here."""
    checkout = Checkout(folder / "one", campaign(100))
    row = {**checkout.campaign["grid"]["blocks"][0]["set"], "layers": 1, "hidden": 64}
    quick = {"window_s": 0.5, "window_steps": 4, "warmup_max_steps": 8, "idle_s": 0.3, "eval_batches": 1}
    checkout.campaign |= {"grid": {"rows": [row]}, "protocol": {"device": "cpu", **quick}}
    checkout.save()
    checkout.snakemake("--cores", "2", "measurements")
    return next((checkout.root / "results/bench/runs").glob("*/run.json")).parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--runs", type=int, default=10_000, help="finished runs to make tables of; 0: none")
    options = parser.parse_args(argv)
    missed = []
    with tempfile.TemporaryDirectory(prefix="bench-workflow-") as name:
        folder = Path(name)
        for rows in options.sizes:
            found = bench_grid(rows, folder)
            print(
                f"{rows:6d} rows: " + ", ".join(f"{key} {value:.1f}" for key, value in found.items()),
                flush=True,
            )
            if rows == 10_000 and found["dry_run_s"] > BAR_DRY_RUN_S:
                missed.append(f"dry run of 10,000 rows {found['dry_run_s']:.1f} s > {BAR_DRY_RUN_S} s")
        if options.runs:
            found = bench_tables(one_finished_run(folder), options.runs, folder)
            print(
                f"{options.runs:6d} runs: " + ", ".join(f"{key} {value:.1f}" for key, value in found.items())
            )
            if options.runs == 10_000 and (
                found["tables_s"] > BAR_TABLES_S or found["tables_mb"] > BAR_TABLES_MB
            ):
                missed.append(f"tables of 10,000 runs {found['tables_s']:.1f} s, {found['tables_mb']:.0f} MB")
    print(*[f"missed: {text}" for text in missed], sep="\n", end="\n" if missed else "")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
