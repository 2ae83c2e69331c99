"""How the workflow scales: dry runs of large grids, the tables of ten thousand runs, where a job's time goes.

For each size of a grid: wall and CPU time (s) and peak resident memory (MB) of `snakemake -n` on a fresh campaign, on a
finished one (nothing to do), and on a finished one with one row more. The tables of many copies of a real run, by the
commands of the rules. A small real campaign on the local executor and on the test Slurm, and its timings table.

Results are kept in workflow.json and workflow.md beside this file; parts that are not run keep what they had. Exits 1
where a bar is missed: a dry run of 10,000 rows within 20 s, the tables of 10,000 runs within 60 s and 2 GiB.
"""

import argparse
import itertools
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jouleline.campaign import grid
from jouleline.files import write_json, write_text
from jouleline.reduce import timings
from jouleline.schemas import read_table
from jouleline.schemas.timings import TIMINGS

from tests.slurm.campaign import SNAPPY, Campaign
from tests.slurm.cluster import Cluster
from tests.slurm.settings import Settings
from tests.workflow.checkout import Checkout

HERE = Path(__file__).resolve().parent
SIZES = (100, 1000, 10_000, 50_000)
OPERATIONS = ("dry_run", "no_op", "one_more")
RUNS = 10_000
BAR_DRY_RUN_S, BAR_TABLES_S, BAR_TABLES_MB = 20, 60, 2048
QUICK = {"window_s": 1, "window_steps": 4, "warmup_max_steps": 8, "idle_s": 0.3, "eval_batches": 1}


def campaign(rows: int) -> dict:
    """A campaign of so many rows: 100 shapes by sequence lengths, batches and seeds."""
    axes = {"layers": list(range(1, 11)), "hidden": [64 * i for i in range(1, 11)]}
    axes["seed"] = list(range(rows // 100))
    fixed = {"vocab_size": 2048, "seq_len": 32, "micro_batch": 4, "heads": 4, "intermediate": 256}
    block = {"axes": axes, "set": fixed}
    shards = max(4, rows // 1000)  # the names of a thousand runs fit into one argument
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
    (dataset.parent / "grid.json").touch()
    for run in runs:
        folder = checkout.root / "results/bench/runs" / run.run_id
        folder.mkdir(parents=True)
        for name in ("samples.parquet", "markers.parquet", "run.json"):
            (folder / name).touch()
    return runs


def bench_grid(rows: int, folder: Path) -> dict[str, float]:
    checkout = Checkout(folder / f"grid-{rows}", campaign(rows))
    results = {}

    def keep(name: str) -> str:
        *figures, text = dry_run(checkout)
        results.update(zip((f"{name}_s", f"{name}_cpu_s", f"{name}_mb"), figures, strict=True))
        return text

    text = keep("dry_run")
    assert f"measure_run {rows}" in " ".join(text.split()), text[-2000:]
    finish(checkout)
    text = keep("no_op")
    assert "Nothing to be done" in text, text[-2000:]
    checkout.campaign["grid"]["rows"] = [
        {**checkout.campaign["grid"]["blocks"][0]["set"], "layers": 12, "hidden": 64}
    ]
    checkout.save()
    text = keep("one_more")
    assert "measure_run 1 " in " ".join(text.split()), text[-2000:]
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
    more = ["--timings", f"{tables}/timings.parquet", "--dictionary", f"{tables}/data_dictionary.md"]
    inputs = ["--grid", "results/bench/grid.json", "--runs-dir", "results/bench/runs", "--energy", *energies]
    commands += [
        ["collect_runs", *inputs, "--slurm", "none.json", *outputs, *more],
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
    results = {"runs": rows, "tables_s": time.monotonic() - began, "tables_mb": max(mb for _, _, mb in done)}
    for name, cpu_s, _ in done:
        results[f"{name}_cpu_s"] = results.get(f"{name}_cpu_s", 0.0) + cpu_s
    shutil.rmtree(checkout.root)
    return results


def one_finished_run(folder: Path) -> Path:
    """A real run of the smallest row, measured here."""
    checkout = small_campaign(folder / "one", 1)
    checkout.snakemake("--cores", "2", "measurements")
    return next((checkout.root / "results/bench/runs").glob("*/run.json")).parent


def small_campaign(root: Path, rows: int) -> Checkout:
    checkout = Checkout(root, campaign(100))
    shape = {**checkout.campaign["grid"]["blocks"][0]["set"], "layers": 1, "hidden": 64}
    checkout.campaign |= {"grid": {"rows": [{**shape, "seed": seed} for seed in range(rows)]}}
    checkout.campaign |= {"protocol": {"device": "cpu", **QUICK}, "analysis": {"shards": 1}}
    checkout.campaign["node"] |= {"exclusive": False}
    checkout.save()
    return checkout


def bench_jobs(folder: Path, rows: int = 4) -> dict[str, dict]:
    """Where the time of a measured job goes, of a small real campaign on the local executor and on a real Slurm."""
    found = {}
    local = small_campaign(folder / "local", rows)
    began = time.monotonic()
    local.snakemake("--cores", "2", "--resources", "measuring=1", "--", "tables")
    found["local"] = _split(local, time.monotonic() - began)
    slurm = small_campaign(folder / "slurm", rows)
    with Cluster(Settings(nodes=2), Path(tempfile.mkdtemp(prefix="slurm-testbed-")), owned=True) as cluster:
        began = time.monotonic()
        arguments = ["--profile", "slurm", "--configfile", "campaign.yaml", *SNAPPY, "--", "tables"]
        with Campaign(cluster, slurm.root, *arguments) as started:
            if started.wait(500):
                raise SystemExit(f"the campaign on Slurm failed:\n{started.said()[-3000:]}")
        found["slurm"] = _split(slurm, time.monotonic() - began)
    return found


def _split(checkout: Checkout, campaign_s: float) -> dict:
    """The phases of the timings table; on one machine, runs one after another, the rest of the campaign's time too."""
    rows = read_table(TIMINGS, checkout.root / "results/bench/tables/timings.parquet")
    wall_s = sum(row["wall_s"] for row in rows)
    return {"runs": len(rows), "campaign_s": campaign_s, "wall_s": wall_s, "phases": timings.summary(rows)}


def growth(grids: dict[str, dict], key: str) -> list[tuple[int, int, float]]:
    """(from rows, to rows, exponent of the growth of a figure with the rows) of neighbouring sizes."""
    sizes = sorted(map(int, grids))
    return [
        (low, high, math.log(grids[str(high)][key] / grids[str(low)][key]) / math.log(high / low))
        for low, high in itertools.pairwise(sizes)
    ]


def bars(results: dict) -> list[dict]:
    """Every bar: name, value, limit, passed; of what was not measured, not passed."""
    of_grid, of_tables = results.get("grids", {}).get(str(RUNS), {}), results.get("tables", {})
    of_tables = of_tables if of_tables.get("runs") == RUNS else {}
    found = (
        (f"dry run of {RUNS:,} rows (s)", of_grid.get("dry_run_s"), BAR_DRY_RUN_S),
        (f"tables of {RUNS:,} runs (s)", of_tables.get("tables_s"), BAR_TABLES_S),
        (f"tables of {RUNS:,} runs, largest process (MB)", of_tables.get("tables_mb"), BAR_TABLES_MB),
    )
    return [
        {"bar": bar, "value": value, "limit": limit, "passed": value is not None and value <= limit}
        for bar, value, limit in found
    ]


def as_markdown(results: dict) -> str:
    """The page that is kept beside this file."""
    measured = "; ".join(f"{part} {when}" for part, when in sorted(results["measured"].items()))
    lines = ["# How the workflow scales", "", "Made by `make bench-workflow`; do not edit.", ""]
    lines += [f"On {results['machine']}. Finished at: {measured}.", ""]
    lines += [
        "The load is the processes that ran or waited in the minute before, those of the benchmark included.",
        "",
    ]
    lines += ["| bar | measured | limit | |", "|---|---|---|---|"]
    for bar in results["bars"]:
        value = "not measured" if bar["value"] is None else f"{bar['value']:.1f}"
        lines.append(
            f"| {bar['bar']} | {value} | {bar['limit']} | {'pass' if bar['passed'] else '**FAIL**'} |"
        )
    return "\n".join([*lines, *_grid_lines(results.get("grids", {})), *_other_lines(results)]) + "\n"


def _grid_lines(grids: dict[str, dict]) -> list[str]:
    lines = [
        "",
        "`snakemake -n` of a fresh campaign, of a finished one, and of a finished one with one row more:",
        "",
    ]
    lines += [f"| rows | {' | '.join(f'{name} s | CPU s | MB' for name in OPERATIONS)} |", "|---" * 10 + "|"]
    for rows, found in sorted(grids.items(), key=lambda item: int(item[0])):
        cells = [f"{found[f'{name}{unit}']:.1f}" for name in OPERATIONS for unit in ("_s", "_cpu_s", "_mb")]
        lines.append(f"| {int(rows):,} | {' | '.join(cells)} |")
    for key, text in (("_cpu_s", "CPU time"), ("_mb", "memory")):
        parts = [
            f"{name} "
            + ", ".join(f"{k:.2f} ({low:,} to {high:,})" for low, high, k in growth(grids, name + key))
            for name in OPERATIONS
        ]
        lines += ["", f"Exponent of the growth of {text} with the rows: {'; '.join(parts)}."]
    return lines


def _other_lines(results: dict) -> list[str]:
    lines = []
    if found := results.get("tables"):
        steps = ", ".join(
            f"{k.removesuffix('_cpu_s')} {v:.1f}" for k, v in found.items() if k.endswith("_cpu_s")
        )
        lines += [
            "",
            f"Tables of {found['runs']:,} finished runs: {found['tables_s']:.1f} s, CPU s: {steps}.",
        ]
    for executor, found in results.get("jobs", {}).items():
        lines += [
            "",
            f"A job of {found['runs']} small real runs, executor {executor}; the whole campaign up to its",
        ]
        lines += [f"tables took {found['campaign_s']:.1f} s, its runs {found['wall_s']:.1f} s of it:", ""]
        lines += ["| phase | mean s | longest s | share |", "|---|---|---|---|"]
        lines += [
            f"| {e['phase'].removesuffix('_s')} | {e['mean_s']:.2f} | {e['most_s']:.2f} | {e['share']:.1%} |"
            for e in found["phases"]
        ]
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", nargs="+", choices=("grids", "tables", "jobs"), default=("grids", "tables", "jobs")
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows of the grids")
    parser.add_argument("--runs", type=int, default=RUNS, help="finished runs to make tables of")
    parser.add_argument("--out", type=Path, default=HERE / "workflow.json")
    options = parser.parse_args(argv)
    results = json.loads(options.out.read_text()) if options.out.exists() else {"measured": {}}
    results["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"

    def keep(part: str) -> None:
        when = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
        results["measured"][part] = f"{when} (load {os.getloadavg()[0]:.1f})"
        results["bars"] = bars(results)
        write_json(options.out, results)
        write_text(options.out.with_suffix(".md"), as_markdown(results))

    with tempfile.TemporaryDirectory(prefix="bench-workflow-") as name:
        folder = Path(name)
        for rows in options.sizes if "grids" in options.parts else ():
            found = results.setdefault("grids", {})[str(rows)] = bench_grid(rows, folder)
            print(
                f"{rows:6d} rows: " + ", ".join(f"{key} {value:.1f}" for key, value in found.items()),
                flush=True,
            )
            keep(f"{rows:,} rows")
        if "tables" in options.parts:
            found = results["tables"] = bench_tables(one_finished_run(folder), options.runs, folder)
            print("tables: " + ", ".join(f"{key} {value:.1f}" for key, value in found.items()), flush=True)
            keep("tables")
        if "jobs" in options.parts:
            results["jobs"] = bench_jobs(folder)
            keep("jobs")
    print(options.out.with_suffix(".md").read_text())
    return 0 if all(bar["passed"] for bar in results["bars"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
