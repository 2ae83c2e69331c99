"""Hold-outs: which rows train and which are predicted. A family is never on both sides.

H0: grouped 70/30, many seeds. H1: leave one architecture out. H2: leave the extremes of each axis out. H3: small to
large and large to small compute. H4: leave a parallel strategy out. H5: leave a device count out. H6: leave a device
type out (zero-shot, and with 3 and 5 of its runs, drawn or planned). H7: leave a precision, a variant or a family of
models out. H8: leave a tenth of the shapes out, for external tables. holdout: the rows with this label in the campaign.
all: every row trains and is predicted in sample, for the shipped model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.features import AXES, Data
from jouleline.model.frugal.belief import configurations
from jouleline.model.frugal.choose import measure_first
from jouleline.model.table.runs import SHAPE, Columns, one_source, take, unusable, usable

Fold = tuple[str, np.ndarray, np.ndarray]
"""(name, training mask [R], test mask [R])."""

MIN_TRAIN_FAMILIES = 3


def split_runs(
    columns: Columns,
    name: str,
    options: dict[str, Any],
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """The split as split.json: folds of run ids, excluded runs with reasons, or the reason why it has no folds.

    `labels` {run_id: {"split": "train" | "holdout"}} are the campaign's own, for the split `holdout`. Raises UserError
    for an unknown split, an unknown option, or a holdout label that leaves a family on both sides.
    """
    if name not in SPLITS:
        raise UserError(f"there is no split {name}; use one of {', '.join(SPLITS)}")
    unknown = set(options) - _OPTIONS
    if unknown:
        raise UserError(
            f"split {name} has no option {sorted(unknown)[0]}; options are {', '.join(sorted(_OPTIONS))}"
        )
    level, make, absent = SPLITS[name]
    kept = take(columns, usable(columns))
    document = {"split": name, "level": level, "folds": [], "excluded": unusable(columns), "reason": None}
    if not len(kept["run_id"]):
        return document | {"reason": "no usable rows"}
    one_source(kept)
    data = Data.of(kept)
    for fold, train, test in make(data, {**options, "labels": labels or {}}):
        families = len(set(data.families[train].tolist()))
        enough = families >= MIN_TRAIN_FAMILIES or name == "all" or options.get("within_family")
        if not test.any() or not enough:
            continue
        ids = kept["run_id"].astype(str)
        document["folds"].append({"fold": fold, "train": ids[train].tolist(), "test": ids[test].tolist()})
    if not document["folds"]:
        document["reason"] = f"not identified: {absent}"
    return document


_OPTIONS = {"seeds", "test_share", "seed", "parts", "within_family", "draws"}


def _by_family(data: Data, test: np.ndarray) -> np.ndarray:
    """Training rows: those whose family has no row in `test`."""
    return ~np.isin(data.families, data.families[test])


def grouped(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H0: 30 % of the families out, drawn `seeds` times."""
    families = np.unique(data.families)
    out = max(1, round(len(families) * float(options.get("test_share", 0.3))))
    if len(families) < MIN_TRAIN_FAMILIES + 1:
        return
    for seed in range(int(options.get("seeds", 20))):
        drawn = np.random.default_rng([int(options.get("seed", 0)), seed]).permutation(families)[:out]
        test = np.isin(data.families, drawn)
        yield f"seed-{seed:02d}", ~test, test


def architectures(data: Data) -> np.ndarray:
    """A readable name of each row's architecture, object [R]."""
    shape = zip(*(data.columns[name].tolist() for name in SHAPE), strict=True)
    return np.array([f"L{a}-d{b}-h{c}-f{d}" for a, b, c, d in shape], dtype=object)


MOST_ARCHITECTURES = 40


def leave_one_architecture_out(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H1. With more than MOST_ARCHITECTURES of them, so many groups are left out, each predicted from all others."""
    labels = architectures(data)
    if len(set(labels.tolist())) <= MOST_ARCHITECTURES:
        yield from _leave_one_out(data, labels)
    else:
        yield from _shapes_in_parts(data, labels, MOST_ARCHITECTURES, options)


def _leave_one_out(data: Data, labels: np.ndarray) -> Iterator[Fold]:
    names = sorted(set(labels.tolist()), key=str)
    if len(names) < 2:
        return
    for name in names:
        test = labels == name
        yield str(name), _by_family(data, test), test


def extremes(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H2: the top and the bottom value of each axis out."""
    for axis in AXES:
        values = data.columns[axis]
        levels = np.unique(values)
        if len(levels) < 3:  # with two values, nothing remains to learn the axis from
            continue
        for side, level in (("lowest", levels[0]), ("highest", levels[-1])):
            test = values == level
            yield f"{axis}-{side}-{level}", _by_family(data, test), test


def across_sizes(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H3: the three lower quartiles of compute (per device and step) predict the top one, and the reverse."""
    codes, compute = np.unique(data.families), data.flop
    per_family = np.array([np.median(compute[data.families == code]) for code in codes])
    low, high = np.quantile(per_family, [0.25, 0.75])
    for name, out in (("small-to-large", per_family > high), ("large-to-small", per_family < low)):
        test = np.isin(data.families, codes[out])
        yield name, ~test, test


def _cross(data: Data, options: dict[str, Any], labels: np.ndarray, names: Iterable) -> Iterator[Fold]:
    """A label out and families out. A part of the families is predicted under the label. The rest trains without the
    label."""
    families = np.unique(data.families)
    parts = min(int(options.get("parts", 5)), len(families))
    shuffled = np.random.default_rng(int(options.get("seed", 0))).permutation(families)
    for name in names:
        for number in range(parts):
            held = np.isin(data.families, shuffled[number::parts])
            yield f"{name}-part-{number}", ~held & (labels != name), held & (labels == name)


def leave_strategy_out(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H4: rows on a single device always train."""
    names = sorted(set(data.strategy.tolist()) - {"single"})
    yield from _cross(data, options, data.strategy, names)


def leave_count_out(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H5: each device count out, while two other counts remain to learn scaling from.

    With the option `within_family` only the largest count is out, and the smaller counts of the same workloads train. A
    table with one workload needs this, because a split by family is not possible there.
    """
    counts = data.devices.astype(int)
    names = sorted(set(counts.tolist()))
    if len(names) >= 3 and options.get("within_family"):
        yield f"{names[-1]}-within-family", counts < names[-1], counts == names[-1]
    elif len(names) >= 3:
        yield from _cross(data, options, counts, names[1:])


def leave_device_out(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H6: a device type out, with none, 3 and 5 of its runs given back. The families of these runs are then not
    predicted.

    The runs given back are of different configurations. They are drawn at random `draws` times, because one draw
    depends on luck. Once they are planned, in the way of somebody who has the device (see `measure_first`).
    """
    devices = data.columns["device"].astype(str)
    names = sorted(set(devices.tolist()))
    if len(names) < 2:
        return
    rng = np.random.default_rng(int(options.get("seed", 0)))
    for name in names:
        test = devices == name
        yield f"{name}-zero-shot", ~test, test
        distinct, _ = configurations(data, test)
        for shots in (3, 5):
            given = {"-planned": measure_first(data, test, shots)}
            for draw in range(1, int(options.get("draws", 5)) + 1):
                given["" if draw == 1 else f"-draw-{draw}"] = rng.permutation(distinct)[:shots]
            for how, runs in sorted(given.items()):
                few = ~test
                few[runs] = True
                rest = test & ~np.isin(data.families, data.families[runs])
                yield f"{name}-{shots}-runs{how}", few, rest


def leave_variant_out(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H7: a precision out, a fine-tuning variant (LoRA, frozen layers, checkpointing) out, a family of models out."""
    for labels in (data.columns["precision"], data.variant, data.columns["model_type"]):
        yield from _leave_one_out(data, labels)


def leave_shapes_out(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """H8: the architectures in ten parts. Each part is predicted from the other nine."""
    labels = architectures(data)
    parts = min(int(options.get("parts", 10)), len(set(labels.tolist())))
    if parts >= 2:
        yield from _shapes_in_parts(data, labels, parts, options)


def _shapes_in_parts(data: Data, labels: np.ndarray, parts: int, options: dict[str, Any]) -> Iterator[Fold]:
    names = np.array(sorted(set(labels.tolist())), dtype=object)
    shuffled = np.random.default_rng(int(options.get("seed", 0))).permutation(names)
    for number in range(parts):
        test = np.isin(labels.astype(str), shuffled[number::parts].astype(str))
        yield f"shapes-{number}", _by_family(data, test), test


def labelled(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """holdout: the rows that the campaign labels `holdout`, predicted from the others."""
    labels = options["labels"]
    test = np.array([labels.get(run_id, {}).get("split") == "holdout" for run_id in data.columns["run_id"]])
    both = np.intersect1d(data.families[test], data.families[~test])
    if len(both):
        name = data.columns["family"][data.families == both[0]][0]
        raise UserError(
            f"the holdout label leaves the family {name} on both sides; give all its rows the same label"
        )
    yield "holdout", ~test, test


def everything(data: Data, options: dict[str, Any]) -> Iterator[Fold]:
    """all: every row is predicted in sample."""
    rows = np.ones(len(data), dtype=bool)
    yield "all", rows, rows


SPLITS: dict[str, tuple[str, Callable[[Data, dict], Iterator[Fold]], str]] = {
    "H0": ("family", grouped, "fewer than four families (workload and device)"),
    "H1": (
        "architecture",
        leave_one_architecture_out,
        "fewer than two architectures or too few families beside them",
    ),
    "H2": ("axis value", extremes, "no axis has three values with enough families between them"),
    "H3": ("compute quartile", across_sizes, "too few families to divide by compute"),
    "H4": (
        "strategy and family",
        leave_strategy_out,
        "only one strategy, or too few families without the one left out",
    ),
    "H5": ("device count and family", leave_count_out, "fewer than three device counts"),
    "H6": ("device", leave_device_out, "only one device type"),
    "H7": (
        "precision, variant or model family",
        leave_variant_out,
        "only one precision, one variant and one family of models",
    ),
    "H8": ("architecture, ten parts", leave_shapes_out, "fewer than two architectures"),
    "holdout": ("label", labelled, "no row is labelled holdout"),
    "all": ("in sample", everything, "no usable rows"),
}
