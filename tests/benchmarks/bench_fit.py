"""How long fitting and predicting take, on synthetic tables with known constants; fails where a bar is missed.

Bars: a full fit of paper, roofline and hybrid on 500 rows from 64 starts 60 s; 1000 bootstrap refits 600 s;
100,000 predictions 1 s.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import synthetic
from jouleline.model.fit.configurations import predict_table
from jouleline.model.fit.fitting import fit_split
from jouleline.model.judge.splits import split_runs

ROWS, STARTS, DRAWS, PREDICTIONS = 500, 64, 1000, 100_000


def main() -> int:
    """Print every time beside its bar; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS, help="bootstrap draws")
    draws = parser.parse_args().draws
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
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, taken, bar in measured:
        print(f"{name:45s} {taken:8.2f} s   bar {bar} s   {'ok' if taken <= bar else 'MISSED'}")
    print("of which", ", ".join(f"{model} {taken:.2f} s" for model, taken in seconds.items()))
    return 0 if all(taken <= bar for _, taken, bar in measured) else 1


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
