"""From a public table's file to its runs table, fits, scores and page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jouleline.files import write_json
from jouleline.model.fit.fitting import fit_split
from jouleline.model.fit.predict import predict_split, to_arrow
from jouleline.model.judge.gates import stratum
from jouleline.model.judge.splits import split_runs
from jouleline.model.judge.validate import validate
from jouleline.model.table.mappings import convert
from jouleline.model.table.runs import complete, read_columns, write_runs
from jouleline.report import page
from jouleline.report.inputs import Inputs
from jouleline.schemas import read_table
from jouleline.schemas.runs import RUNS

OPTIONS = {"starts": 16, "inner_parts": 3, "bootstrap": 0, "profile": False}


def judge(name: str, mapping: Mapping[str, Any], table: Path, out: Path) -> Iterator[str]:
    """Write runs.parquet, fit/MODEL/SPLIT.json, validation.json and report.html below `out`. Yields each step's name.

    The mapping's `origin` names the models and hold-outs. The page is about the first model.
    """
    origin = mapping["origin"]
    columns = complete(convert(read_columns(table), mapping, str(table)), str(table))
    write_runs(columns, out / "runs.parquet")
    fits, tables, splits = [], [], []
    for split_name, options in origin["splits"].items():
        split = split_runs(columns, split_name, options)
        splits.append(split)
        for model in origin["models"]:
            yield f"{model} on {split_name} of {name}"
            fits.append(fit_split(columns, split, model, None, OPTIONS))
            tables.append(predict_split(columns, split, fits[-1]))
            write_json(out / "fit" / model / f"{split_name}.json", fits[-1])
    scores = validate(columns, tables, fits, {}, origin["models"][0])
    write_json(out / "validation.json", scores)
    page.write(_inputs(name, mapping, out, scores, fits, tables, splits), out / "report.html")


def _inputs(name, mapping, out: Path, scores, fits, tables, splits) -> Inputs:
    """The inputs of the report. An outside table has only runs, fits and predictions."""
    runs = read_table(RUNS, out / "runs.parquet")
    devices = {run["run_id"]: run["device"] for run in runs}
    rows = [row for table in tables for row in to_arrow(table).to_pylist()]
    origin = mapping["origin"]
    return Inputs(
        campaign=name,
        runs=sorted(runs, key=lambda run: run["run_id"]),
        regions=[],
        timings=[],
        checks=[],
        predictions=[
            {**row, "stratum": stratum(row["split"], row["fold"], devices.get(row["run_id"]))} for row in rows
        ],
        fits=fits,
        validation=scores,
        calibration={},
        idle={},
        records={},
        runs_dir=out,
        splits=splits,
        headline=origin["models"][0],
        settings={"title": f"{name}: {origin['citation']} ({origin['licence']})"},
        digests={origin["file"]: origin["sha256"] or "unknown"},
    )
