"""The command `jouleline fit`."""

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from jouleline.commands.progress import Progress
from jouleline.errors import UserError
from jouleline.files import read_json, require_writable, write_json, write_text

LONG = 200
"""Rows from which a table is fitted on all cores."""

# Starts or draws. More would not end.
MOST = 1_000_000


def main(argv: list[str]) -> int:
    """Fit models to a table of runs, score them on hold-outs, and write the model for later use."""
    # With thousands of small matrices, a second thread costs more than it gains. numpy reads this when first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from jouleline.model.fit.registry import MODELS
    from jouleline.model.judge.splits import SPLITS

    parser = argparse.ArgumentParser(prog="jouleline fit", description=__doc__)
    parser.add_argument(
        "table", help="runs table, .parquet or .csv; foreign columns: `jouleline import` first"
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="folder for model.json, model-card.md, validation.json"
    )
    parser.add_argument(
        "--models", nargs="+", default=["hybrid", "roofline", "paper"], choices=MODELS, metavar="MODEL"
    )
    parser.add_argument("--splits", nargs="*", default=["H0", "H1"], choices=SPLITS, metavar="SPLIT")
    parser.add_argument(
        "--ship", choices=MODELS, metavar="MODEL", help="the model of model.json; default: the first"
    )
    parser.add_argument("--calibration", help="calibration.json of the device")
    parser.add_argument("--starts", type=int, default=64, help="starts of each fit, at least 1")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="bootstrap draws of the shipped fits, or 0"
    )
    parser.add_argument(
        "--no-calibration-priors", action="store_true", help="fit without what calibration says"
    )
    args = parser.parse_args(argv)
    if not (1 <= args.starts <= MOST and 0 <= args.bootstrap <= MOST):
        raise UserError(
            f"--starts {args.starts} --bootstrap {args.bootstrap}: give at least 1 and at least 0, at most {MOST:,}"
        )
    _run(args)
    return 0


def _run(args: argparse.Namespace) -> None:
    from jouleline.model.judge.validate import validate
    from jouleline.model.table.checks import note_power
    from jouleline.model.table.files import note_unknown, read_columns
    from jouleline.model.table.runs import complete, require_variation, take, usable
    from jouleline.report.card import model_card

    raw = read_columns(args.table)
    columns = complete(raw, args.table)
    require_variation(take(columns, usable(columns)), args.table)
    calibration = _calibration(args.calibration) if args.calibration else None
    require_writable(args.out)  # now, not after the fit
    note_unknown(raw, args.table, "left out")
    note_power(columns, args.table)
    fits, tables = [], []
    for fit, table in _fits(args, columns, calibration):
        fits.append(fit)
        tables.append(table)
    validation = validate(columns, tables, fits, {}, args.ship or args.models[0])
    write_json(args.out / "validation.json", validation)
    shipped = next(
        fit for fit in fits if fit["split"] == "all" and fit["model"] == (args.ship or args.models[0])
    )
    for fit in fits:
        if fit["split"] == "all":
            write_json(args.out / "fit" / fit["model"] / "all.json", fit)
    write_json(args.out / "model.json", shipped)
    write_text(args.out / "model-card.md", model_card(shipped, validation))
    _print(validation, shipped, args.out)


def _calibration(path: str) -> Mapping[str, Any]:
    """One or several calibration.json. Raises UserError for any other JSON."""
    document = read_json(path)
    devices = document.get("devices") if isinstance(document, Mapping) else None
    for one in devices if isinstance(devices, list) and devices else [document]:
        quantities = one.get("quantities", []) if isinstance(one, Mapping) else None
        known = isinstance(quantities, list) and all(map(_is_quantity, quantities))
        if not known or not isinstance(one.get("device"), str):
            raise UserError(
                f"{path} is no calibration; give the node/calibration.json of a campaign, or leave it out"
            )
    return document


def _is_quantity(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not {"quantity", "value"} <= set(entry):
        return False
    value = entry["value"]
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0)


def _fits(args: argparse.Namespace, columns, calibration) -> list[tuple]:
    """(fit, predictions) of every model on every split. For a long table the splits run on all cores. The models of one
    split stay together, because they share the fit of the law."""
    splits = [*(name for name in args.splits if name != "all"), "all"]
    models = list(dict.fromkeys([*args.models, *([args.ship] if args.ship else [])]))
    rows = len(columns["run_id"])
    workers = min(len(os.sched_getaffinity(0)), len(splits))
    if rows < LONG or workers < 2:
        pairs = list(itertools.product(splits, models))
        found = []
        with Progress(len(pairs)) as progress:
            for split_name, model in pairs:
                progress.next(f"{model} on {split_name}")
                found.append(_one(args, columns, split_name, model, calibration))
        return found
    pieces: dict[str, list] = {}
    with Progress(len(splits)) as progress, _pool(workers) as pool:
        progress.announce(f"{len(models)} models on {', '.join(splits)} of {rows} rows")
        waiting = {
            pool.submit(_of_split, args, columns, name, models, calibration): name
            for name in reversed(splits)
        }
        for one in as_completed(waiting):
            pieces[waiting[one]] = one.result()
            progress.next(f"done with {waiting[one]}")
    return [piece for name in splits for piece in pieces[name]]


def _pool(workers: int):
    # A fork has the libraries and the table already.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))


def _of_split(args: argparse.Namespace, columns, split_name: str, models: list[str], calibration) -> list:
    return [_one(args, columns, split_name, model, calibration) for model in models]


def _one(args: argparse.Namespace, columns, split_name: str, model: str, calibration) -> tuple:
    from jouleline.model.fit.fitting import fit_split
    from jouleline.model.fit.predict import predict_split
    from jouleline.model.judge.splits import split_runs

    split = split_runs(columns, split_name, {})
    options = {
        "starts": args.starts,
        "bootstrap": args.bootstrap,
        "calibration_priors": not args.no_calibration_priors,
    }
    fit = fit_split(columns, split, model, calibration, options)
    return fit, predict_split(columns, split, fit)


def _print(validation, shipped, out: Path) -> None:
    for row in validation["results"]:
        if row["split"] == "all" or row["target"] != "energy":
            continue
        mode = (
            f" ({row['efficiency_mode']}{', post-run' if row['post_run'] else ''})"
            if row["efficiency_mode"]
            else ""
        )
        error = (
            f"MAPE {row['mape']:.1%} on {row['n']} held-out rows"
            if row["identified"]
            else f"not identified: {row['reason']}"
        )
        part = f" {row['stratum']}" if row.get("stratum") else ""
        print(f"{row['split']}{part} {row['model']}{mode}: {error}")
    if not shipped["folds"][0]["identified"]:
        print(f"the shipped model is not identified: {shipped['folds'][0]['reason']}")
    print(f"{out / 'model.json'} ({shipped['model']}), {out / 'model-card.md'}, {out / 'validation.json'}")
