"""Fit one model on every fold of one split. The result is the fit.json from which predictions are made."""

import hashlib
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import jouleline
from jouleline.errors import UserError
from jouleline.model.base import Context, Model, Prediction, State
from jouleline.model.features import CATEGORIES, Data, domain, extrapolation
from jouleline.model.fit import intervals, registry
from jouleline.model.laws import efficiency
from jouleline.model.machine import Machines
from jouleline.model.table.runs import Columns, digest, one_source, take, usable

SCHEMA = 1
DEFAULTS: dict[str, Any] = {
    "starts": 64,
    "seed": 0,
    "calibration_priors": True,
    "fixed_time": False,
    "inner_parts": 5,
    "bootstrap": None,
    "profile": None,
}
"""Options of a fit. `bootstrap` and `profile` (None): 1000 draws and profiles for the split `all`, none otherwise."""


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with their defaults. Raises UserError for an unknown option."""
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise UserError(f"a fit has no option {sorted(unknown)[0]}; options are {', '.join(DEFAULTS)}")
    return DEFAULTS | dict(options)


_MOST_ROWS = 3000
"""The largest number of rows of a table with which inner fits see all of them."""

_last: dict[str, Data] = {}


def load(columns: Columns) -> Data:
    """The usable rows of a table, of one energy source, as arrays. Raises UserError where sources are mixed.

    The last table stays in memory, with everything that models derived from it. Models begin with the same fits and ask
    for the same rows.
    """
    key = digest(columns)
    if key not in _last:
        kept = take(columns, usable(columns))
        if len(kept["run_id"]):
            one_source(kept)
        _last.clear()
        _last[key] = Data.of(kept)
    return _last[key]


def named_runs(split: Mapping[str, Any]) -> set[str]:
    """The run ids that a split trains on or predicts."""
    return {run_id for fold in split["folds"] for side in ("train", "test") for run_id in fold[side]}


def masks(data: Data, split: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(train, test) bool [folds, R] of a split document. Raises UserError where it names a run that the table lacks."""
    ids = {run_id: row for row, run_id in enumerate(data.columns["run_id"].tolist())}
    shape = (len(split["folds"]), len(data))
    train, test = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for number, fold in enumerate(split["folds"]):
        for side, mask in (("train", train), ("test", test)):
            unknown = [run_id for run_id in fold[side] if run_id not in ids]
            if unknown:
                raise UserError(
                    f"split {split['split']} names the run {unknown[0]}, which the table lacks; split it again"
                )
            mask[number, [ids[run_id] for run_id in fold[side]]] = True
    return train, test


def ids_digest(run_ids: Iterable[str]) -> str:
    """SHA-256 of a set of run ids. It tells what a fold was trained on, and so tells it from other folds of the same
    name."""
    return hashlib.sha256("\n".join(sorted(map(str, run_ids))).encode()).hexdigest()


def fit_split(
    columns: Columns,
    split: Mapping[str, Any],
    model_name: str,
    calibration: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """fit.json of one model on one split.

    `columns` is a runs table (see `jouleline.model.table.runs`). `calibration` is calibration.json or None. The state
    of a fold never uses a target of its held-out rows. Raises UserError for mixed sources, or an unknown
    model or option.

    >>> from jouleline.model.judge.splits import split_runs
    >>> from jouleline.model.table.runs import complete
    >>> shape = {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 256, "micro_batch": 8, "precision": "fp32"}
    >>> placed = {"device": "A100", "device_count": 1, "tensor_parallel": 1, "zero_stage": 0}
    >>> columns = {name: np.full(4, value, dtype=object) for name, value in {**shape, **placed, "steps": 10}.items()}
    >>> columns |= {"seq_len": np.array([32, 64, 32, 64]), "time_s": np.array([1.0, 2.0, 1.0, 2.0])}
    >>> columns |= {"energy_j": np.array([256.0, 512.0, 256.0, 512.0]), "energy_source": np.full(4, "nvml_counter")}
    >>> runs = complete(columns, "an example")
    >>> fit = fit_split(runs, split_runs(runs, "all", {}), "constant", options={"bootstrap": 0, "profile": False})
    >>> fold = fit["folds"][0]
    >>> joule_per_token = np.exp(fold["parameters"]["intercept"]["value"])
    >>> print(f"{fit['model']}, {fold['n_train']} runs, {joule_per_token:.2f} J per token")
    constant, 4 runs, 0.10 J per token
    """
    options = check_options(options or {})
    model = registry.make(model_name)
    document = {
        "schema": SCHEMA,
        "model": model_name,
        "split": split["split"],
        "options": options,
        "versions": _versions(),
        "runs_digest": digest(columns) if columns else None,
        "calibration": dict(calibration) if calibration else None,
        "reason": split.get("reason"),
        "folds": [],
    }
    if not split["folds"]:
        return document
    data = load(columns)
    context = Context(Machines(calibration), options)
    train, test = masks(data, split)
    states = model.fit(data, train.astype(float), context)
    beyond = [_beyond(data, *sides) for sides in zip(train, test, strict=True)]
    widths = _intervals(model, data, train, beyond, states, context)
    for number, fold in enumerate(split["folds"]):
        document["folds"].append(_record(data, fold["fold"], train[number], states[number], widths[number]))
    if split["split"] == "all":
        _ship(model, data, document, context)
    return document


def _versions() -> dict[str, str]:
    from importlib import metadata

    import scipy

    own = getattr(jouleline, "__version__", None) or metadata.version("jouleline")
    return {
        "jouleline": own,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def _record(data: Data, name: str, train: np.ndarray, state: State, widths: dict) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in state.items()
        if key not in {"identified", "reason", "parameters", "diagnostics"}
    }
    return {
        "fold": name,
        "n_train": int(train.sum()),
        "train_digest": ids_digest(data.columns["run_id"][train]),
        "n_train_families": len(set(data.families[train].tolist())),
        "identified": bool(state["identified"]),
        "reason": state["reason"],
        "parameters": state["parameters"],
        "diagnostics": state["diagnostics"],
        "intervals": widths,
        "domain": domain(data, train),
        "energy_source": str(data.columns["energy_source"][train][0]),
        "state": kept,
    }


def _beyond(data: Data, train: np.ndarray, test: np.ndarray) -> set[str]:
    """Those of `intervals.EXTREMES` along which the asked rows may lie outside.

    A shipped model needs all of them. Other models need what the features of the held-out rows ask for, because an
    inner fit is expensive.
    """
    if not (test & ~train).any():
        return set(intervals.EXTREMES)
    found = extrapolation(data.take(test), domain(data, train))
    return set(",".join(found).split(",")) & set(intervals.EXTREMES)


def _intervals(
    model: Model,
    data: Data,
    train: np.ndarray,
    beyond: list[set[str]],
    states: list[State],
    context: Context,
) -> list[dict]:
    """Per fold: half-widths of the log prediction interval, by mode and target (see `intervals.half_widths`).

    For a long table they come from a sample of its families. Each fold has its own sample.
    """
    if len(data) <= _MOST_ROWS:
        return _inner(model, data, train, beyond, states, context)
    found = []
    for mask, names, state in zip(train, beyond, states, strict=True):
        key = ("drawn", mask.tobytes())
        if key not in data.memo:
            rows = intervals.drawn(data, mask, _MOST_ROWS, int(context.options["seed"]))
            data.memo[key] = efficiency.take(data, rows)
        some = data.memo[key]
        found += _inner(model, some, np.ones((1, len(some)), dtype=bool), [names], [state], context)
    return found


def _inner(
    model: Model,
    data: Data,
    train: np.ndarray,
    beyond: list[set[str]],
    states: list[State],
    context: Context,
) -> list[dict]:
    """Errors on rows that inner fits have not seen, by fold, as widths."""
    parts, seed = int(context.options["inner_parts"]), int(context.options["seed"])
    parts = min(parts, getattr(model, "inner_parts", parts))
    extremes = getattr(model, "inner_extremes", True)
    inner = [
        intervals.inner_weights(data, row, parts, seed, extremes, names)
        for row, names in zip(train, beyond, strict=True)
    ]
    owner = np.repeat(np.arange(len(train)), [len(one) for one in inner])
    if not len(owner):
        return [{} for _ in train]
    weights = np.array([mask for one in inner for mask in one])
    fitted = model.fit(data, weights.astype(float), context, warm=[states[k] for k in owner])
    scores: list[dict[str, list]] = [{} for _ in train]
    labels = {name: np.array(data.labels(name)[0], dtype=object)[data.labels(name)[1]] for name in CATEGORIES}
    labels["device_count"] = data.devices
    for k, mask, state in zip(owner, weights, fitted, strict=True):
        held = train[k] & ~mask
        out = np.array(extrapolation(data.take(held), domain(data, mask)), dtype=object)
        for prediction in model.predict(state, data, context):
            errors = {target: values[held] for target, values in _log_errors(data, prediction).items()}
            chunk = (errors, data.families[held], out, *(levels[held] for levels in labels.values()))
            scores[k].setdefault(mode_key(prediction), []).append(chunk)
    unseen = [state.get("unseen", {}) for state in states]
    return [
        {mode: _widths(chunks, expected) for mode, chunks in one.items()}
        for one, expected in zip(scores, unseen, strict=True)
    ]


def mode_key(prediction: Prediction) -> str:
    """The name under which the intervals of a prediction mode are kept."""
    return f"{prediction.efficiency_mode or 'none'}{' post-run' if prediction.post_run else ''}"


def _log_errors(rows: Data, prediction: Prediction) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = np.log(prediction.step_energy_j / rows.step_energy_j)
        time = np.log(prediction.step_time_s / rows.step_time_s)
    known = prediction.identified
    return {"energy": np.where(known, energy, np.nan), "time": np.where(known, time, np.nan)}


def _widths(chunks: list, unseen: dict[str, dict[str, float]]) -> dict[str, dict]:
    """Widths from `chunks` of errors. `unseen` says, by axis and target, how far off the model expects an unseen level
    (log sd)."""
    families, out, *labels = [np.concatenate(parts) for parts in list(zip(*chunks, strict=True))[1:]]
    levels = dict(zip((*CATEGORIES, "device_count"), labels, strict=True))
    return {
        target: intervals.half_widths(
            np.concatenate([chunk[0][target] for chunk in chunks]),
            *(families, out, levels["device"], levels),
            {axis: sds[target] for axis, sds in unseen.items()},
        )
        for target in ("energy", "time")
    }


def _ship(model: Model, data: Data, document: dict[str, Any], context: Context) -> None:
    """Add to the fit on all rows what the shipped model carries: bootstrap and profile intervals."""
    from jouleline.model.fit import bootstrap

    record = document["folds"][0]
    draws = context.options["bootstrap"]
    draws = 1000 if draws is None else int(draws)
    if draws:
        bootstrap.add_intervals(model, data, record, context, draws)
    if context.options["profile"] is not False:
        bootstrap.add_profiles(model, data, record, context)
