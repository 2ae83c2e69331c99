"""How long the choice of a batch takes, on synthetic runs with known constants; fails where the bar is missed.

Bar: a batch of 20 among 10,000 rows from 300 runs, the fit on these included, 30 s.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import synthetic
from jouleline.model.features import Data
from jouleline.model.frugal import choose
from jouleline.model.table.runs import take

RUNS, ROWS, BATCH, BAR_S = 300, 10_000, 20, 30


def main() -> int:
    """Print the times beside the bar; 1 where it is missed."""
    columns = synthetic.table(RUNS + ROWS, seed=7)
    runs = Data.of(take(columns, np.arange(RUNS)))
    candidates = Data.of(take(columns, np.arange(RUNS, RUNS + ROWS)))
    context = choose.context()
    begin = time.perf_counter()
    state = choose.fitted(runs, context)
    fitted = time.perf_counter()
    expected = choose.expect(candidates, state, context)
    joules = expected.step_energy_j * candidates.steps
    found = choose.measure_next(runs, candidates, expected, joules, BATCH, context, state)
    ended = time.perf_counter()
    assert len({one.candidate for one in found}) == BATCH
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        f"fit on {RUNS} runs {fitted - begin:.2f} s, choice of {BATCH} among {ROWS} rows {ended - fitted:.2f} s"
    )
    ok = ended - begin <= BAR_S
    print(f"together {ended - begin:.2f} s   bar {BAR_S} s   {'ok' if ok else 'MISSED'}")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
