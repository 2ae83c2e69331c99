"""An invented campaign for tests of the report: the file formats of a real one, with numbers from a formula and a seed.

Nothing in it was measured. It is written only into the temporary folders of tests.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from jouleline.schemas import write_table
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.energy import REGIONS
from jouleline.schemas.model import PREDICTIONS
from jouleline.schemas.runs import RUNS
from jouleline.schemas.samples import MARKERS, SAMPLES
from jouleline.schemas.timings import TIMINGS

STRATEGIES = ((1, 0, 1), (2, 1, 1), (2, 3, 1), (2, 0, 2))  # devices, ZeRO stage, tensor parallel
# model, efficiency mode, post-run, relative error that was invented for it
MODELS = (
    ("roofline", "modelled", False, 0.05),
    ("paper", "parametric", False, 0.22),
    ("paper", "measured", True, 0.12),
    ("constant", None, False, 0.6),
    ("flops", None, False, 0.3),
    ("device_seconds", None, True, 0.08),
)
SPLITS = ("H0", "H1")
HOSTILE = "<script>alert('reason')</script> & \"quoted\" $\\frac{1}{0}$"


def write(folder: Path, source: str = "estimate", seed: int = 7, more: Sequence = ()) -> dict[str, object]:
    """Write a campaign of 26 runs, two of them not fit for use, and return the arguments of `inputs.load`.

    `more` are layers, hidden, length and batch of further runs, on one device each.
    """
    rng = random.Random(seed)
    runs = _runs(rng, source)
    runs += [_run(rng, source, *shape, STRATEGIES[0], 3) for shape in more]
    runs_dir = folder / "runs"
    for run in runs:
        run_folder(runs_dir / run["run_id"], run, traces=run["replicate"] == 1 and run["layers"] == 2)
    write_table(RUNS, runs, folder / "tables/runs.parquet")
    write_table(
        REGIONS, [region(run) for run in runs if run["status"] == "ok"], folder / "tables/regions.parquet"
    )
    write_table(TIMINGS, [timing(run) for run in runs], folder / "tables/timings.parquet")
    write_table(CHECKS, [check for run in runs for check in _checks(run)], folder / "tables/checks.parquet")
    good = [run for run in runs if run["status"] == "ok" and run["verdict"] == "valid"]
    predictions = [
        _write_predictions(folder, rng, model, split, good) for model in _names() for split in SPLITS
    ]
    fits = [_write_fit(folder, model, split) for model in _names() for split in (*SPLITS, "all")]
    _json(folder / "validation.json", _validation(source, len(good)))
    _json(folder / "calibration.json", _calibration())
    _json(
        folder / "idle.json",
        {"schema": 1, "devices": [{"uuid": "made-up", "idle_power_w": 5.0}], "duration_s": 1.0},
    )
    return arguments(folder, predictions, fits)


def arguments(folder: Path, predictions=(), fits=()) -> dict[str, object]:
    """The arguments of `inputs.load` for a folder that is written here."""
    tables = {name: folder / f"tables/{name}.parquet" for name in ("runs", "regions", "timings", "checks")}
    facts = {name: folder / f"{name}.json" for name in ("validation", "calibration", "idle")}
    paths = {"predictions": list(predictions), "fits": list(fits), "runs_dir": folder / "runs"}
    return {"campaign": "made-up", "tables": tables, "facts": facts, **paths}


def write_empty(folder: Path) -> dict[str, object]:
    """A campaign in which every run failed and no model could be fitted."""
    run = _run(random.Random(1), "estimate", 2, 64, 32, 8, STRATEGIES[0], 1)
    run |= dict.fromkeys(("energy_j", "time_s", "steps", "tokens", "samples", "energy_source", "accuracy"))
    run |= {"status": "failed", "verdict": "invalid", "reasons": "trainer_exit", "mean_power_w": None}
    write_table(RUNS, [run], folder / "tables/runs.parquet")
    write_table(REGIONS, [], folder / "tables/regions.parquet")
    write_table(TIMINGS, [], folder / "tables/timings.parquet")
    write_table(CHECKS, [], folder / "tables/checks.parquet")
    reason = "0 usable runs; at least 8 are needed"
    result = {
        "model": "roofline",
        "split": "H0",
        "target": "energy",
        "efficiency_mode": "modelled",
        "post_run": False,
    }
    result |= {"identified": False, "reason": reason, "n": 0, "n_families": 0, "mape": None}
    validation = {
        "schema": 1,
        "energy_sources": [],
        "noise_floor": None,
        "results": [result],
        "gates": [],
        "passed": None,
    }
    _json(folder / "validation.json", validation)
    _json(folder / "calibration.json", {"schema": 1, "device": None, "quantities": []})
    _json(folder / "idle.json", {})
    fit = {
        "schema": 1,
        "model": "roofline",
        "split": "H0",
        "folds": [{"fold": 0, "identified": False, "reason": reason}],
    }
    _json(folder / "fit/roofline/H0.json", fit)
    (folder / "runs").mkdir()
    return arguments(folder, fits=[folder / "fit/roofline/H0.json"])


def _names() -> list[str]:
    return list(dict.fromkeys(name for name, *_ in MODELS))


def _runs(rng: random.Random, source: str) -> list[dict]:
    shapes = [(layers, hidden, seq, 8) for layers in (1, 2, 4) for hidden in (64, 128) for seq in (32, 128)]
    runs = [_run(rng, source, *shape, STRATEGIES[0], 1) for shape in shapes]
    runs += [_run(rng, source, 2, 64, seq, 8, s, 1) for seq in (32, 128) for s in STRATEGIES[1:]]
    runs += [_run(rng, source, 2, 64, 32, 8, s, 2) for s in STRATEGIES]
    runs += [_run(rng, source, 4, 128, 128, 16, s, 1) for s in STRATEGIES]
    runs[-1] |= {
        "status": "oom",
        "verdict": "invalid",
        "reasons": "oom",
        "energy_j": None,
        "time_s": None,
        "mean_power_w": None,
    }
    runs[-2] |= {
        "verdict": "invalid",
        "reasons": "loss_not_finite",
        "loss_last": float("nan"),
        "accuracy": None,
    }
    return runs


# What all runs have in common.
_COMMON = {
    **{"campaign": "made-up", "host": "host-a", "device": "made-up CPU", "nodes": 1, "model_type": "bert"},
    **{"heads": 4, "grad_accum": 1, "precision": "fp32", "attention": "sdpa", "vocab_size": 8192},
    **{"task": "classification", "steps": 40, "idle_power_w": 5.0, "loss_first": 2.1, "loss_last": 0.9},
    **{"accuracy": 0.7, "status": "ok", "verdict": "valid", "reasons": ""},
}


def _run(rng, source, layers, hidden, seq, batch, strategy, replicate) -> dict:
    devices, zero, tensor = strategy
    data, steps = devices // tensor, _COMMON["steps"]
    flop = 6 * layers * 12 * hidden**2 * batch * seq / tensor
    step_s = (0.01 + flop / 2e10 + 0.004 * layers * (devices > 1)) * (1 + 0.02 * rng.random())
    power_w = (5 + 10 * devices * (0.7 + 0.3 * rng.random())) if source == "estimate" else 100 * devices
    family = f"bert-L{layers}-d{hidden}-s{seq}-b{batch}"
    run = {"run_id": f"{family}-z{zero}-tp{tensor}-n{devices}-r{replicate}", "family": family}
    run |= {"replicate": replicate, "device_count": devices, "gpus_per_node": devices, "data_parallel": data}
    run |= {"tensor_parallel": tensor, "zero_stage": zero, "layers": layers, "hidden": hidden}
    run |= {"intermediate": 4 * hidden, "seq_len": seq, "micro_batch": batch, "samples": steps * data * batch}
    run |= {"tokens": steps * data * batch * seq, "time_s": steps * step_s, "mean_power_w": power_w}
    run |= {"energy_j": power_w * steps * step_s, "energy_source": source}
    return _COMMON | run | {"energy_edge_u_j": None if source == "estimate" else 0.4}


def region(run: dict) -> dict:
    keys = (
        "run_id",
        "time_s",
        "steps",
        "energy_j",
        "energy_source",
        "idle_power_w",
        "mean_power_w",
        "verdict",
        "reasons",
    )
    return {key: run[key] for key in keys} | {"region": "window", "ordinal": 0, "role": "job"}


def timing(run: dict) -> dict:
    known = {"imports_s": 6.5, "model_s": 1.25, "window_s": run["time_s"], "rest_s": 2.0}
    return {"run_id": run["run_id"], "status": run["status"], **known}


def _checks(run: dict) -> list[dict]:
    finite = run["reasons"] != "loss_not_finite"
    check = {"run_id": run["run_id"], "severity": "error", "details": "{}"}
    window = check | {
        "name": "window_long_enough",
        "passed": None if run["time_s"] is None else run["time_s"] > 0.5,
    }
    return [
        check | {"name": "loss_finite", "passed": finite, "message": "" if finite else HOSTILE},
        window | {"severity": "warning", "message": "the window has fewer seconds than the protocol asks"},
    ]


def run_folder(folder: Path, run: dict, traces: bool) -> None:
    packages = {"torch": "2.13.0", "transformers": "5.23.0", "deepspeed": "0.19.8"}
    environment = {
        "host": "host-a",
        "python": "3.11",
        "packages": packages,
        "device": run["device"],
        "driver": None,
    }
    record = {"schema": 1, "run_id": run["run_id"], "status": run["status"], "environment": environment}
    record |= {
        "protocol": {"period_ms": 20, "window_s": 3.0, "estimate_w_per_core": 10.0},
        "code_digest": "0" * 64,
    }
    record |= {"started_utc": "2026-01-01T00:00:00Z", "ended_utc": "2026-01-01T00:01:00Z"}
    device = {"index": 0, "uuid": "made-up", "name": "made-up", "kind": run["energy_source"], "role": "job"}
    record |= {"training": {"world_size": run["device_count"]}}
    record["nodes"] = [
        {"node": 0, "host": "host-a", "meta": {"devices": [device]}, "events": [], "ranks": []}
    ]
    record["reason"] = HOSTILE if run["status"] == "oom" else None
    _json(folder / "run.json", record)
    if traces and run["status"] == "ok":
        _raw(folder, run)


def _raw(folder: Path, run: dict) -> None:
    """Samples every 20 ms of an invented counter, and the marks of warm-up, window and evaluation."""
    warm, window, evaluation = 1.0, max(run["time_s"], 2.0), 0.8
    begin, samples, energy = 100.0, [], 5_000_000.0
    for i in range(int((warm + window + evaluation + 2) / 0.02)):
        t = begin + 0.02 * i
        energy += 20 * (5.0 if t < begin + 1 else run["mean_power_w"] * (1 + 0.1 * ((i * 7919) % 13 - 6) / 6))
        samples.append(
            {"node": 0, "device": 0, "lane": 0, "t_us": int(t * 1e6), "status": 0, "energy_mj": int(energy)}
        )
    write_table(SAMPLES, samples, folder / "samples.parquet")
    marks, t = [], begin + 1
    for identity, (name, length) in enumerate(
        (("warmup", warm), ("window", window), ("evaluation", evaluation)), start=1
    ):
        mark = {"node": 0, "rank": 0, "id": identity, "parent": 0, "name": name}
        marks.append(mark | {"seq": len(marks), "kind": 1, "t_ns": int(t * 1e9)})
        t += length
        marks.append(mark | {"seq": len(marks), "kind": 2, "t_ns": int(t * 1e9)})
    write_table(MARKERS, marks, folder / "markers.parquet")


def _write_predictions(folder: Path, rng: random.Random, model: str, split: str, runs: list[dict]) -> Path:
    rows = []
    for name, mode, post_run, error in (entry for entry in MODELS if entry[0] == model):
        for fold in range(2):
            for run in rng.sample(runs, 2 * len(runs) // 3):
                factor, time_factor = (2.718281828 ** rng.gauss(0, error) for _ in range(2))
                energy = run["energy_j"] * factor
                bounds = _bounds("energy", "j", energy, error) | _bounds(
                    "time", "s", run["time_s"] * time_factor, error
                )
                row = {key: run[key] for key in ("run_id", "family", "energy_source", "time_s", "energy_j")}
                row |= {
                    "fold": f"seed-{fold:02d}",
                    "model": name,
                    "split": split,
                    "efficiency_mode": mode,
                    "post_run": post_run,
                }
                row |= {
                    "predicted_energy_j": energy,
                    "predicted_time_s": run["time_s"] * time_factor,
                    **bounds,
                }
                rows.append(
                    row
                    | {"extrapolates": False, "extrapolation_axes": "", "identified": True, "reason": None}
                )
    path = folder / f"predictions/{model}/{split}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(PREDICTIONS, rows, path)
    return path


def _bounds(target: str, unit: str, value: float, error: float) -> dict[str, float]:
    widths = {"80": 1.28 * error, "95": 1.96 * error}
    return {
        f"{target}_{side}{level}_{unit}": value * 2.718281828 ** (sign * width)
        for level, width in widths.items()
        for side, sign in (("lo", -1), ("hi", 1))
    }


def _write_fit(folder: Path, model: str, split: str) -> Path:
    parameters = {
        "roofline": {
            "peak_flops": {
                "value": 2.13e10,
                "unit": "FLOP/s",
                "lo95": 1.9e10,
                "hi95": 2.4e10,
                "identified": True,
            },
            "static_power_w": {"value": 4.9, "unit": "W", "lo95": 4.1, "hi95": 5.6, "identified": True},
            "overlap": {"value": None, "unit": "", "lo95": None, "hi95": None, "identified": False},
        },
        "paper": {"log C": {"value": 0.61, "unit": "", "lo95": 0.5, "hi95": 0.7, "identified": True}},
    }.get(model, {"scale": {"value": 1.2e-3, "unit": "J", "lo95": 1e-3, "hi95": 1.4e-3, "identified": True}})
    diagnostics = {"condition_number": 812.0, "starts_at_best": 0.41, "singular_values": [3.2, 1.1, 0.004]}
    fold = {
        "fold": 0,
        "n_train": 16,
        "identified": True,
        "reason": None,
        "parameters": parameters,
        "diagnostics": diagnostics,
    }
    fit = {
        "schema": 1,
        "model": model,
        "split": split,
        "options": {},
        "versions": {"jouleline": "0.1.0"},
        "runs_digest": "ab" * 32,
    }
    path = folder / f"fit/{model}/{split}.json"
    _json(path, fit | {"folds": [fold]})
    return path


_GATE = {
    **{"name": "in-domain energy", "split": "H0", "model": "roofline", "metric": "mape", "target": "energy"},
    **{"direction": "<=", "limit": 0.06, "stretch": 0.03, "value": 0.05, "passed": True, "enabled": True},
    **{"stratum": None, "n": 24, "n_predictions": 24, "ceiling": None},
}
_RANKING = _GATE | {
    **{"name": "ranking", "metric": "kendall_tau", "direction": ">=", "limit": 0.95, "stretch": 0.95},
    **{"value": 0.61, "ceiling": 0.72, "passed": False, "enabled": False},
}


def _validation(source: str, n: int) -> dict:
    results = [
        _scores(error)
        | (_above_paper(error) if target == "energy" and name != "paper" else {})
        | {"model": name, "split": split, "target": target, "efficiency_mode": mode, "post_run": post_run}
        | {"n": n}
        for name, mode, post_run, error in MODELS
        for split in SPLITS
        for target in ("energy", "time")
    ]
    results[-1] |= {"identified": False, "reason": "one family only", "mape": None}
    floor = {"energy_cv": 0.012, "time_cv": 0.009, "n_groups": 4}
    document = {"schema": 1, "energy_sources": [source], "noise_floor": floor, "results": results}
    return document | {"gates": [_GATE, _RANKING], "passed": True}


def _above_paper(error: float) -> dict:
    mean = error - 0.22
    return {"above_paper": mean, "above_paper_lo95": mean - 0.03, "above_paper_hi95": mean + 0.03}


def _scores(error: float) -> dict:
    scores = {
        "n_folds": 2,
        "n_families": 14,
        "mape": error,
        "mape_lo95": 0.7 * error,
        "mape_hi95": 1.5 * error,
    }
    scores |= {"median_ape": 0.8 * error, "p90_ape": 2 * error, "log_rmse": 1.2 * error, "r2_log": 0.97}
    scores |= {"bias": -0.01, "coverage80": 0.81, "coverage95": 0.96, "width95": 1.3, "kendall_tau": 0.9}
    return scores | {"top1": 0.8, "regret": 0.02, "identified": True, "reason": None}


def _calibration() -> dict:
    curve = [(10.0**k, 2e10 * 10**k / (10**k + 3e6)) for k in range(5, 11)]
    quantities = [quantity("matmul_flops", "fp32", size, value, "FLOP/s") for size, value in curve]
    quantities += [
        quantity("peak_flops", "fp32", None, 2e10, "FLOP/s"),
        quantity("idle_power_w", None, None, None, "W"),
    ]
    quantities += [quantity("half_saturation_flop", "fp32", None, 3e6, "FLOP")]
    return {
        "schema": 1,
        "device": "made-up CPU",
        "device_kind": "cpu",
        "software": {},
        "duration_s": 9.5,
        "quantities": quantities,
    }


def quantity(name, precision, size, value, unit) -> dict:
    return {
        "quantity": name,
        "precision": precision,
        "size": size,
        "value": value,
        "unit": unit,
        "u_rel": 0.02,
        "n": 5,
        "method": "made up",
    }


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, allow_nan=True))
