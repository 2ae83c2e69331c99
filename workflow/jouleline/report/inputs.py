"""Everything that the report is made of, read once: tables, fits, verdicts, and the record of every run."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jouleline.campaign.config import read_yaml
from jouleline.files import read_json
from jouleline.model.judge.gates import stratum
from jouleline.report.labels import model_rank
from jouleline.schemas import read_table
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.energy import REGIONS
from jouleline.schemas.model import HEADLINE, PREDICTIONS, headline
from jouleline.schemas.runs import RUNS
from jouleline.schemas.timings import TIMINGS

Row = Mapping[str, Any]
# What distinguishes the series of predictions: the model, the mode of its efficiency, and post-run or not.
Series = tuple[str, str | None, bool]


@dataclass(frozen=True)
class Inputs:
    """The files of one campaign in memory. Tables are lists of dict rows; a null stays None. `planned` is the number of
    runs in the grid, None where unknown."""

    campaign: str
    runs: list[Row]
    regions: list[Row]
    timings: list[Row]
    checks: list[Row]
    predictions: list[Row]
    fits: list[Row]
    validation: Row
    calibration: Row
    idle: Row
    records: dict[str, Row]
    runs_dir: Path
    splits: list[Row] = field(default_factory=list)
    answers: list[Row] = field(default_factory=list)
    rounds: list[Row] = field(default_factory=list)
    suggested: Row = field(default_factory=dict)
    config: Row | None = None
    settings: Row = field(default_factory=dict)
    headline: str = HEADLINE
    planned: int | None = None
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_scores(cls, campaign: str, runs: list[Row], validation: Row) -> "Inputs":
        """Only runs and scores: enough for the headline."""
        nothing: dict = {
            "regions": [],
            "timings": [],
            "checks": [],
            "predictions": [],
            "fits": [],
            "records": {},
        }
        machine: dict = {"calibration": {}, "idle": {}, "runs_dir": Path()}
        return cls(
            campaign, runs, validation=validation, headline=_headline(validation), **nothing, **machine
        )

    @property
    def by_id(self) -> dict[str, Row]:
        """Runs by their id."""
        return {run["run_id"]: run for run in self.runs}

    @property
    def energy_sources(self) -> list[str]:
        """The sources of all energies that the report can show, sorted."""
        seen = {run.get("energy_source") for run in self.runs if run.get("energy_j") is not None}
        seen |= {row.get("energy_source") for row in self.predictions}
        seen |= set(self.validation.get("energy_sources") or [])
        return sorted(name for name in seen if name)

    @property
    def split_names(self) -> list[str]:
        """The judged hold-outs (see `holdout`), in order. The in-sample pseudo-split `all` is none."""
        return sorted({holdout(row) for row in (*self.results, *self.predictions)} - {"", "all"})

    @property
    def results(self) -> list[Row]:
        """The held-out rows of validation.json, our models first. `all` holds nothing out."""
        rows = [row for row in self.validation.get("results") or [] if row.get("split") != "all"]
        return sorted(rows, key=lambda row: (holdout(row), str(row.get("target")), _order(series_of(row))))

    def series(self, split: str) -> list[Series]:
        """Series with predictions in `split`, our models first. A post-run series follows its honest version."""
        return sorted({series_of(row) for row in self.predictions if holdout(row) == split}, key=_order)

    def result(self, series: Series, split: str, target: str) -> Row | None:
        """The scores of a series in a hold-out. None where it was not judged.

        A hold-out without folds has one row per model that says so, without a mode. This row stands for all modes.
        """
        rows = [row for row in self.results if (holdout(row), row.get("target")) == (split, target)]
        exact = [row for row in rows if series_of(row) == series]
        whole = [
            row
            for row in rows
            if series_of(row) == (series[0], None, False) and row.get("identified") is False
        ]
        return next(iter(exact + whole), None)


def series_of(row: Row) -> Series:
    """(model, efficiency mode, post-run) of a prediction or a result."""
    return (str(row.get("model")), row.get("efficiency_mode"), bool(row.get("post_run")))


def holdout(row: Row) -> str:
    """The hold-out of a result, prediction or gate: its split, or the part of it that is judged alone ("H6 5-runs")."""
    return f"{row.get('split') or ''} {row.get('stratum') or ''}".strip()


def _order(series: Series) -> tuple:
    name, mode, post_run = series
    return (model_rank(name), post_run, mode or "")


def load(
    campaign: str,
    tables: Mapping[str, Path],
    facts: Mapping[str, Path],
    runs_dir: Path,
    predictions: Iterable[Path] = (),
    fits: Iterable[Path] = (),
    splits: Iterable[Path] = (),
    config: Path | None = None,
    answers: Iterable[Path] = (),
    rounds: Iterable[Path] = (),
    suggested: Path | None = None,
    **choices: Any,
) -> Inputs:
    """Read the inputs of a report.

    `tables`: paths of runs, regions, timings and checks. `facts`: paths of validation, calibration and idle. `choices`
    are `planned` (the number of runs in the grid) and `settings` (`title`, `traces`). The report is about the headline
    model of validation.json. Raises UserError that names a missing or torn file.
    """
    predictions, fits, splits, answers = (
        sorted(map(Path, paths)) for paths in (predictions, fits, splits, answers)
    )
    files = [*tables.values(), *facts.values(), *predictions, *fits, *splits, *answers]
    rounds = list(map(Path, rounds))
    files += [*rounds, *filter(None, (config, suggested))]
    known = {name: read_json(path) for name, path in facts.items()}
    runs = sorted(read_table(RUNS, tables["runs"]), key=lambda run: run["run_id"])
    return Inputs(
        campaign=campaign,
        runs=runs,
        regions=read_table(REGIONS, tables["regions"]),
        timings=read_table(TIMINGS, tables["timings"]),
        checks=read_table(CHECKS, tables["checks"]),
        predictions=_predictions(predictions, runs),
        fits=[read_json(path) for path in fits],
        **known,
        headline=_headline(known["validation"]),
        records=_records(Path(runs_dir)),
        runs_dir=Path(runs_dir),
        splits=[read_json(path) for path in splits],
        answers=[answer for path in answers for answer in read_json(path)["answers"]],
        rounds=sorted((read_json(path) for path in rounds), key=lambda one: one["round"]),
        suggested=read_json(suggested) if suggested else {},
        config=_config(config),
        digests=_digests(map(Path, files)),
        **choices,
    )


def _headline(validation: Row) -> str:
    """The model of the scores. A validation of an older version does not name it."""
    fitted = dict.fromkeys(str(row.get("model")) for row in validation.get("results") or [])
    return headline(fitted, validation.get("headline")) or HEADLINE


def _predictions(paths: Iterable[Path], runs: Iterable[Row]) -> list[Row]:
    """The rows of all predictions tables, each with the part of its split that is judged alone."""
    devices = {run["run_id"]: run.get("device") for run in runs}
    rows = [row for path in paths for row in read_table(PREDICTIONS, path)]
    return [
        {**row, "stratum": stratum(row["split"], row["fold"], devices.get(row["run_id"]))} for row in rows
    ]


def _records(runs_dir: Path) -> dict[str, Row]:
    """Records by run id: run.json of a finished run, else run.failed.json of a failed one."""
    records = {}
    for name in ("run.failed.json", "run.json"):
        for path in sorted(runs_dir.glob(f"*/{name}")):
            record = read_json(path)
            records[record.get("run_id") or path.parent.name] = record
    return dict(sorted(records.items()))


def _config(path: Path | None) -> Row | None:
    return None if path is None else read_yaml(Path(path))


def _digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each input, by the end of its path. The start of the path depends on the machine."""
    digests = {}
    for path in files:
        depth = 3 if path.parts[-3:-2] in (("fit",), ("predictions",), ("rounds",)) else 2
        digests["/".join(path.parts[-depth:])] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests
