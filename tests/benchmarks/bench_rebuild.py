"""How long `make rebuild` takes for the reference campaign, on a made-up table of its size; fails beyond two minutes.

All rows of config/campaigns/h200.yaml, with times and energies drawn from the roofline law (1.5 % noise) and a made-up
calibration, are packed as data and rebuilt in a copy of the checkout. Nothing in them was measured, and nothing of them
is kept, unless --keep names a new folder for it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit/report"))

import fabricated_campaign
import synthetic
from jouleline.campaign import config
from jouleline.files import read_json, write_json, write_text
from jouleline.model.table.runs import complete, write_runs
from jouleline.reference.data import pack
from jouleline.schemas import write_table
from jouleline.schemas.energy import REGIONS
from jouleline.schemas.timings import TIMINGS

from tests.workflow.checkout import ROOT, Checkout

CAMPAIGN, DEVICE, BAR_S, NOISE = "h200", "NVIDIA H200", 120, 0.015
WINDOW_S = 3.0
CALIBRATION = (
    *(("peak_flops", "bf16", 6.5e14, "FLOP/s"), ("peak_flops", "fp32", 4.6e13, "FLOP/s")),
    *(("half_saturation_flop", "bf16", 6e9, "FLOP"), ("half_saturation_flop", "fp32", 8e8, "FLOP")),
    *(("memory_bandwidth_triad", None, 3.9e12, "B/s"), ("idle_power_w", None, 76.0, "W")),
    *(("active_wait_host_power_w", None, 120.0, "W"), ("compute_bound_power_w", None, 610.0, "W")),
    *(("memory_bound_power_w", None, 430.0, "W"), ("power_limit_w", None, 700.0, "W")),
)
TRUTH = synthetic.TRUTH | {
    "peak_flops": np.log(5.2e14),
    "memory_bandwidth": np.log(3.1e12),
    "compute_energy_j_per_flop": np.log(6.5e-13),
}
FP32 = TRUTH | {"peak_flops": np.log(4.1e13), "compute_energy_j_per_flop": np.log(7.5e-12)}


def main() -> int:
    """Print where the time went; 1 where it is beyond the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="new folder for the checkout and its results")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory(prefix="bench-rebuild-") as name:
        folder = keep or Path(name)
        data = folder / "packed"
        made_up(folder / "measured")
        pack(folder / "measured", data, raw_runs=8, limit_mb=20)
        checkout = Checkout(folder / "checkout", {"campaign": CAMPAIGN})
        for part in ("Makefile", "pyproject.toml", ".venv"):
            (checkout.root / part).symlink_to(ROOT / part)
        load, began = os.getloadavg()[0], time.perf_counter()
        command = ["make", "-s", "rebuild", f"CAMPAIGN={CAMPAIGN}", f"DATA={data}"]
        process = subprocess.Popen(
            command, cwd=checkout.root, stderr=subprocess.STDOUT, stdout=subprocess.PIPE
        )
        text = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        if status:
            raise SystemExit(f"make rebuild failed:\n{text[-3000:]}")
        split = read_json(checkout.root / f"results/{CAMPAIGN}/splits/H0.json")
        assert split["folds"] and not split["excluded"], split["excluded"][:3]
        print(text[text.index("Campaign ") :])
        show_parts(checkout.root)
    print(f"load of the machine before: {load:.1f} on {os.cpu_count()} cores")
    verdict = "ok" if wall_s <= BAR_S else "MISSED"
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"make rebuild of {CAMPAIGN}: {wall_s:.0f} s ({cpu_s:.0f} s of CPU)   bar {BAR_S} s   {verdict}")
    return 0 if wall_s <= BAR_S else 1


def made_up(folder: Path) -> None:
    """A finished campaign's folder: tables, calibration, and raw files of every run."""
    runs = config.load({"campaign": CAMPAIGN}, ROOT).runs
    columns = targets([{**run.row, "run_id": run.run_id, "replicate": run.row["replicate"]} for run in runs])
    write_runs(columns, folder / "tables/runs.parquet")
    rows = [
        {name: values[k : k + 1].tolist()[0] for name, values in columns.items()} for k in range(len(runs))
    ]
    for row in rows:
        record_run(folder / "runs" / row["run_id"], row)
    write_table(REGIONS, [fabricated_campaign.region(row) for row in rows], folder / "tables/regions.parquet")
    write_table(TIMINGS, [fabricated_campaign.timing(row) for row in rows], folder / "tables/timings.parquet")
    write_text(folder / "tables/data_dictionary.md", "made up\n")
    quantities = [
        fabricated_campaign.quantity(name, precision, None, value, unit)
        for name, precision, value, unit in CALIBRATION
    ]
    calibration = {"schema": 1, "device": DEVICE, "device_kind": "cuda", "software": {}, "duration_s": 45.0}
    write_json(folder / "node/calibration.json", calibration | {"quantities": quantities})
    write_text(folder / "node/calibration.parquet", "made up; nothing reads it\n")
    idle = {"schema": 1, "devices": [{"uuid": "made-up", "idle_power_w": 76.0}], "duration_s": 10.0}
    write_json(folder / "node/idle.json", idle)


def targets(rows: list[dict]) -> dict[str, np.ndarray]:
    """The runs table of the rows: windows of WINDOW_S, time and energy by the law with the constants of a precision."""
    fixed = {"device": DEVICE, "device_count": 1, "host": "made-up", "campaign": CAMPAIGN, "steps": 10}
    fixed |= {"time_s": 1.0, "energy_j": 1.0, "energy_source": "nvml_counter", "idle_power_w": 76.0}
    fixed |= {"loss_first": 0.7, "loss_last": 0.5}
    rows = [row | fixed for row in rows]
    columns = complete({name: [row[name] for row in rows] for name in rows[0]}, "made up")
    drawn = [
        synthetic.with_targets(columns, np.random.default_rng(1), NOISE, truth) for truth in (TRUTH, FP32)
    ]
    precise = columns["precision"] == "fp32"
    time_s, energy_j = (np.where(precise, drawn[1][name], drawn[0][name]) for name in ("time_s", "energy_j"))
    steps = np.maximum(np.round(WINDOW_S / (time_s / 10)), 10).astype(np.int64)
    columns |= {"steps": steps, "time_s": time_s / 10 * steps, "energy_j": energy_j / 10 * steps}
    for name in ("tokens", "samples"):
        columns[name] = columns[name] / 10 * steps
    return columns | {"mean_power_w": columns["energy_j"] / columns["time_s"]}


def record_run(folder: Path, row: dict) -> None:
    """The record and raw files of a run, with what the provenance of packed data asks for."""
    fabricated_campaign.run_folder(folder, row, traces=True)
    record = read_json(folder / "run.json")
    record["environment"] |= {"driver": "made-up", "cuda": "made-up", "cpu": "made-up"}
    write_json(folder / "run.json", record)


def show_parts(root: Path) -> None:
    """Seconds of every rule's jobs together, and of the longest fits, by what Snakemake keeps of each output."""
    spans: dict[str, dict[tuple, str]] = defaultdict(dict)
    for path in (root / ".snakemake/metadata").rglob("*"):
        if path.is_file() and (record := read_json(path)).get("endtime"):
            spans[record["rule"]][record["starttime"], record["endtime"]] = record.get("log", [""])[0]
    totals = {rule: sum(end - start for start, end in jobs) for rule, jobs in spans.items()}
    for rule in sorted(totals, key=totals.get, reverse=True):
        print(f"  {rule:20s} {len(spans[rule]):3d} jobs {totals[rule]:7.1f} s")
    fits = sorted(spans["fit_model"].items(), key=lambda job: job[0][0] - job[0][1])
    for (start, end), log in fits[:8]:
        print(f"    fit {Path(log).stem:28s} {end - start:7.1f} s")


if __name__ == "__main__":
    raise SystemExit(main())
