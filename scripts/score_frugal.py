"""Replay the choice of rows on measured tables: held-out error against joules spent, frugal beside the usual designs.

A row's measurement is looked up when the row is chosen, and not before. The tables are read where they lie.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from jouleline import provenance
from jouleline.errors import UserError
from jouleline.files import read_json, run_script, write_json, write_text
from jouleline.model.table.runs import MIN_ROWS, digest

SHARES = (0.05, 0.10, 0.25, 0.50)
"""Of the joules of the whole grid."""
BAR_SHARE, BAR_POINTS = 0.25, 0.01
FIRST, BATCH = 16, 16
ECAI, DEMO, MLPERF = "ECAI 2025", "Demonstration campaign", "MLPerf Training"
OPTIONS = {"starts": 4, "seed": 0, "calibration_priors": True, "fixed_time": False}


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the scores."""
    folder = os.environ.get("JOULELINE_PUBLIC_DATA", "")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", default=folder, help="folder of the public tables; default: $JOULELINE_PUBLIC_DATA"
    )
    parser.add_argument(
        "--runs", type=Path, help="runs table of a campaign, such as the demo's, to replay too"
    )
    parser.add_argument("--seeds", type=int, default=20, help="hold-outs, each with an order of its own")
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder of hold-outs that are done, for a call that was interrupted to go on from",
    )
    parser.add_argument("--jobs", type=int, default=1, help="hold-outs worked out at a time")
    parser.add_argument(
        "--out", required=True, help="docs/scores.md: its section on frugal choice is replaced"
    )
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.model.table.files import read_columns
    from jouleline.model.table.mappings import BUILT_IN, convert
    from jouleline.model.table.runs import complete, read_runs

    if not args.data and not args.runs:
        raise UserError("no folder of public tables; give --data, set JOULELINE_PUBLIC_DATA, or give --runs")
    parts = {"": _HEAD.format(seeds=args.seeds).splitlines()}
    if args.data:
        path = str(Path(args.data) / "ecai2025_transformer.csv")
        columns = complete(convert(read_columns(path), BUILT_IN["ecai2025"], path), path)
        parts[ECAI] = _replayed(ECAI, columns, args)
        mlperf = Path(args.data) / "mlperf_power_runs.csv"
        parts[MLPERF] = _not_replayed(read_columns(str(mlperf))) if mlperf.exists() else []
    if args.runs:
        parts[DEMO] = _replayed(DEMO, read_runs(args.runs), args)
    _replace(Path(args.out), parts)


def _replace(path: Path, parts: dict[str, list[str]]) -> None:
    """Put the section in the place of the one before, at the end of the page; of tables that were not replayed now what
    stood there stays."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    head, _, section = text.partition(_TITLE)
    _, *kept = ("\n" + section).split("\n### ")
    old = {one.partition("\n")[0]: one.partition("\n")[2].strip("\n").splitlines() for one in kept}
    lines = [*parts[""], ""]
    for name in (ECAI, DEMO, MLPERF):
        found = parts.get(name) or old.get(name)
        lines += [f"### {name}", "", *found, ""] if found else []
    write_text(path, head.rstrip("\n") + "\n\n" + "\n".join(lines))


def _not_replayed(columns: dict) -> list[str]:
    """Why the table of MLPerf is not replayed: how few configurations it has."""
    named = zip(*(columns[name].astype(str).tolist() for name in ("bench", "gpus", "gbs", "ga")), strict=True)
    runs, count = len(columns["bench"]), len(set(named))
    return [
        f"Its {runs} runs cannot be replayed so: they are of {count} configurations of training and device count, and",
        f"the model takes {MIN_ROWS} or more to be identified. There is no choice of configurations to make.",
    ]


def _replayed(name: str, columns: dict, args: argparse.Namespace) -> list[str]:
    """One table's errors: mean over the seeds and its 95 % interval, by design and share of the joules."""
    from jouleline.model.features import Data
    from jouleline.model.judge.splits import grouped
    from jouleline.model.table.runs import take, usable

    data = Data.of(take(columns, usable(columns)))
    keep = args.keep and args.keep / name.replace(" ", "-")
    sizes = _sizes(data)
    holdouts = enumerate(grouped(data, {"seeds": args.seeds}))
    folds = [(data, sizes, train, test, seed, keep) for seed, (_, train, test) in holdouts]
    found = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for whole, curves in pool.map(_one, folds):
            found.append((whole, curves))
            shown = ", ".join(f"{design} {curve[-1][0]:.4f}" for design, curve in curves.items())
            print(
                f"{name}: hold-out {len(found)} of {len(folds)}: whole grid {whole:.4f}, {shown}", flush=True
            )
    errors = {d: np.array([[error for error, _ in curves[d]] for _, curves in found]) for d in DESIGNS}
    counts = {d: np.mean([[count for _, count in curves[d]] for _, curves in found], axis=0) for d in DESIGNS}
    whole = np.array([one for one, _ in found])
    few = [] if sizes == (FIRST, BATCH) else [_FEW.format(len(data), *sizes), ""]
    return [*_estimated(columns), *few, *_table(errors, counts, whole), "", *_bars(errors, whole)]


def _sizes(data) -> tuple[int, int]:
    """Runs of the first set and of a batch at the least: FIRST and BATCH, of a small table as few as identify it."""
    from jouleline.model.frugal import choose

    small = len(data) < 8 * FIRST
    return (choose.first_needed(data, choose.context()), 2) if small else (FIRST, BATCH)


def _estimated(columns: dict) -> list[str]:
    sources = set(columns["energy_source"].tolist())
    return [_ESTIMATED, ""] if sources == {"estimate"} else []


def _one(fold: tuple) -> tuple[float, dict[str, list]]:
    """(error of the whole grid, {design: its errors and runs}) of one hold-out, kept where it was worked out before."""
    data, sizes, train, test, seed, keep = fold
    code = provenance.code_digest([Path(__file__).resolve()])
    path = keep / f"{seed}-{digest(data.columns)[:8]}-{code[:8]}.json" if keep else None
    if path and path.exists():
        return tuple(read_json(path))
    replay = Replay(data, sizes, np.flatnonzero(train), test, seed)
    found = replay.error(replay.pool), {design: replay.along(order) for design, order in DESIGNS.items()}
    if path:
        write_json(path, found)
    return found


class Replay:
    """One hold-out: which rows may be chosen (`pool`), and which are predicted and never chosen (`test`)."""

    def __init__(self, data, sizes: tuple[int, int], pool: np.ndarray, test: np.ndarray, seed: int):
        from jouleline.model.base import Context
        from jouleline.model.machine import Machines

        self.data, self.pool, self.test = data, pool, test
        self.first, self.batch = sizes
        self.context = Context(Machines(), dict(OPTIONS))
        self.rng = np.random.default_rng([seed, 15])
        self.joules = data.columns["energy_j"]
        self.budget = self.joules[pool].sum()

    def error(self, rows: np.ndarray) -> float:
        """MAPE of the held-out rows by the hybrid fitted on some rows; a row without a prediction counts as 100 %."""
        from jouleline.model.laws.hybrid import Hybrid

        if not len(rows):  # a share of a small table that no run fits into
            return 1.0
        weights = np.zeros((1, len(self.data)))
        weights[0, rows] = 1
        (state,) = Hybrid().fit(self.data, weights, self.context)
        energy = Hybrid().predict(state, self.data, self.context)[0].step_energy_j
        wrong = np.abs(energy / self.data.step_energy_j - 1)[self.test]
        return float(np.nan_to_num(wrong, nan=1.0).mean())

    def along(self, order: Callable[["Replay"], Iterator[int]]) -> list[tuple[float, int]]:
        """(error, runs) at each of SHARES of the joules of the whole grid."""
        chosen, spent, found, rows = [], 0.0, [], order(self)
        row = next(rows, None)
        for share in SHARES:
            while row is not None and spent + self.joules[row] <= share * self.budget:
                chosen.append(row)
                spent += self.joules[row]
                row = next(rows, None)
            found.append((self.error(np.array(chosen, dtype=int)), len(chosen)))
        return found


def _frugal(replay: Replay) -> Iterator[int]:
    """First D-optimal, then a batch after each fit. Joules are those that the fit expects, not the measured."""
    from jouleline.model.frugal import choose

    data, pool = replay.data, replay.pool
    first = np.zeros(len(data), dtype=bool)
    first[pool] = True
    chosen = choose.measure_first(data, first, replay.first).tolist()
    yield from chosen
    while len(chosen) < len(pool):
        left = np.setdiff1d(pool, chosen)
        runs, rest = data.take(np.array(chosen)), data.take(left)
        state = choose.fitted(runs, replay.context)
        expected = choose.expect(rest, state, replay.context)
        joules = expected.step_energy_j * rest.steps
        batch = max(replay.batch, len(chosen) // 4)
        for one in choose.measure_next(runs, rest, expected, joules, batch, replay.context, state):
            chosen.append(int(left[one.candidate]))
            yield chosen[-1]


def _random(replay: Replay) -> Iterator[int]:
    yield from replay.rng.permutation(replay.pool).tolist()


def _axes(replay: Replay) -> np.ndarray:
    """The axes of the grid as ranks in 0..1, [R, P]: what a person would vary."""
    columns = replay.data.columns
    names = ("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch", "device_count")
    codes = [np.unique(columns[name], return_inverse=True)[1] for name in names]
    codes += [replay.data.labels(name)[1] for name in ("device", "precision", "strategy", "variant")]
    return np.column_stack([code / max(code.max(), 1) for code in codes if code.max()])


def _hypercube(replay: Replay) -> Iterator[int]:
    """Latin hypercubes of BATCH points over the axes, one after the other; of each the nearest row that is left."""
    from scipy.stats import qmc

    axes, left = _axes(replay), replay.pool.tolist()
    cubes = qmc.LatinHypercube(axes.shape[1], rng=replay.rng)
    while left:
        for point in cubes.random(min(replay.batch, len(left))):
            row = left[int(((axes[left] - point) ** 2).sum(axis=1).argmin())]
            left.remove(row)
            yield row


def _one_factor(replay: Replay) -> Iterator[int]:
    """Around a row drawn at random all rows that differ from it along one axis alone; then around another."""
    axes, left = _axes(replay), replay.rng.permutation(replay.pool).tolist()
    while left:
        differs = (axes[left] != axes[left[0]]).sum(axis=1)
        near = [row for row, count in zip(left, differs, strict=True) if count <= 1]
        yield from near
        left = [row for row in left if row not in set(near)]


DESIGNS: dict[str, Callable[[Replay], Iterator[int]]] = {
    "frugal": _frugal,
    "random": _random,
    "Latin hypercube": _hypercube,
    "one factor at a time": _one_factor,
}


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over the seeds."""
    rng = np.random.default_rng(0)
    drawn = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _table(errors: dict[str, np.ndarray], rows: dict[str, np.ndarray], whole: np.ndarray) -> list[str]:
    heads = " | ".join(f"{share:.0%} of the joules" for share in SHARES)
    lines = [f"| design | {heads} |", "|---|" + "---|" * len(SHARES)]
    for design, values in errors.items():
        cells = []
        for column in range(len(SHARES)):
            low, high = _interval(values[:, column])
            mean, count = values[:, column].mean(), rows[design][column]
            cells.append(f"{mean:.1%} ({low:.1%} to {high:.1%}), {count:.0f} runs")
        lines.append(f"| {design} | {' | '.join(cells)} |")
    low, high = _interval(whole)
    return [*lines, "", f"The whole grid: {whole.mean():.1%} ({low:.1%} to {high:.1%})."]


def _bars(errors: dict[str, np.ndarray], whole: np.ndarray) -> list[str]:
    """What was asked for, and whether it was reached; differences are paired by seed."""
    lines = ["| bar | value (95 % interval) | passed |", "|---|---|---|"]
    above = errors["frugal"] - whole[:, None]
    column = SHARES.index(BAR_SHARE)
    low, high = _interval(above[:, column])
    words = (
        f"frugal at {BAR_SHARE:.0%} of the joules, above the whole grid: at most {100 * BAR_POINTS:g} point"
    )
    passed = "yes" if above[:, column].mean() <= BAR_POINTS else "no"
    lines.append(
        f"| {words} | {100 * above[:, column].mean():+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}) | {passed} |"
    )
    for design in [name for name in errors if name != "frugal"]:
        cells, behind = [], False
        for number, share in enumerate(SHARES):
            less = errors["frugal"][:, number] - errors[design][:, number]
            low, high = _interval(less)
            behind |= low > 0
            cells.append(f"{share:.0%}: {100 * less.mean():+.2f} ({100 * low:+.2f} to {100 * high:+.2f})")
        words = f"frugal less {design}, points; never significantly above 0"
        lines.append(f"| {words} | {'; '.join(cells)} | {'no' if behind else 'yes'} |")
    reached = [f"{share:.0%}" for share, mean in zip(SHARES, above.mean(axis=0)) if mean <= BAR_POINTS]
    first = (
        f"from {reached[0]} of its joules" if reached else f"from none of the shares up to {SHARES[-1]:.0%}"
    )
    return [*lines, "", f"Frugal is within {100 * BAR_POINTS:g} point of the whole grid {first}."]


_TITLE = "## Frugal choice of rows"

_HEAD = f"""{_TITLE}

Generated by `scripts/score_frugal.py`; do not edit. {{seeds}} times 30 % of the families (H0) are held out and never
chosen. Of the others each design chooses rows one after the other; the hybrid is fitted on what was chosen when a share
of the joules of all of them is spent, and predicts the held-out rows (MAPE; the mean over the hold-outs, and its 95 %
bootstrap interval). A row's measurement is looked up when it is chosen. Frugal begins with {FIRST} rows, D-optimal in
what is known before any run; then a batch follows each fit, a quarter of what is measured and at least {BATCH}. Latin
hypercubes have {BATCH} points each. The first three hold-outs were looked at while the choice was
designed.
"""

_FEW = "Of these {} runs the choice begins with {}, and a batch or a hypercube has at least {}."
_ESTIMATED = """These energies are estimated from CPU time, not measured: the replay shows how the choice does
where rows are few and noisy, and nothing about joules."""


if __name__ == "__main__":
    raise SystemExit(main())
