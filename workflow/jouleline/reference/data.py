"""A campaign as data in the checkout: what is kept of it, and how a campaign gets its tables back.

DATA/ has tables/ (runs, regions), node/ (calibration, idle), runs/ (raw files of a few runs), hardware/ where it was
checked, provenance.json (how it was measured; digests of all files) and README.md with the licence.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import atomic_path, digest_file, read_json, write_json, write_text

PROVENANCE = "provenance.json"
TABLES = (
    *("tables/runs.parquet", "tables/regions.parquet", "tables/timings.parquet"),
    "tables/data_dictionary.md",
)
NODE = ("node/calibration.json", "node/calibration.parquet", "node/idle.json")
RAW = ("run.json", "samples.parquet", "markers.parquet")
_KEPT_SEPARATE = ("precision", "zero_stage", "lora_rank", "frozen_layers", "gradient_checkpointing")


def pack(results: Path, out: Path, raw_runs: int, limit_mb: float) -> float:
    """Copy the campaign in `results` into the new folder `out`. Returns its size in MB.

    Raises UserError: a table is missing, `out` exists, the energies are estimated and `out` is in a checkout's data/,
    or the whole is larger than `limit_mb`.
    """
    from jouleline.schemas import read_table
    from jouleline.schemas.runs import RUNS

    if out.exists():
        raise UserError(f"{out} is there already; remove it, or pack into another folder")
    runs = read_table(RUNS, results / TABLES[0])
    sources = sorted({run["energy_source"] for run in runs if run["energy_source"]})
    if "estimate" in sources and out.absolute().parent.name == "data":
        raise UserError("these energies are estimated; only measured ones are kept as data")
    copied = [*TABLES, *NODE]
    copied += [f"runs/{name}/{file}" for name in _some(runs, raw_runs) for file in RAW]
    copied += [str(path.relative_to(results)) for path in _hardware(results)]
    staged = out.with_name(f".{out.name}.packing")
    shutil.rmtree(staged, ignore_errors=True)
    for name in copied:
        _copy(results / name, staged / name)
    provenance = _provenance(results, runs, sources)
    provenance["sha256"] = {name: digest_file(staged / name) for name in sorted(copied)}
    write_json(staged / PROVENANCE, provenance)
    write_text(staged / "README.md", "\n".join(_readme(provenance)) + "\n")
    size_mb = sum(path.stat().st_size for path in staged.rglob("*") if path.is_file()) / 1e6
    if size_mb > limit_mb:
        shutil.rmtree(staged)
        raise UserError(f"the data are {size_mb:.1f} MB, more than {limit_mb:g}; keep fewer --raw-runs")
    staged.rename(out)
    return size_mb


def copy(data: Path, campaign: str, targets: Iterable[Path]) -> None:
    """Copy to each target the file of `data` with the same folder and name.

    Raises UserError where a file is not the one that was packed, or the data are of another campaign.
    """
    provenance = read_json(data / PROVENANCE)
    if provenance["campaign"] != campaign:
        raise UserError(
            f"{data} is of campaign {provenance['campaign']}, not {campaign}; correct the key `data`"
        )
    for target in targets:
        name = f"{target.parent.name}/{target.name}"
        if digest_file(data / name) != provenance["sha256"].get(name):
            raise UserError(f"{data / name} is not the file that was packed; restore it")
        _copy(data / name, target)


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise UserError(f"missing file {source}; finish the campaign first (snakemake tables)")
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _some(runs: list[Mapping[str, Any]], count: int) -> list[str]:
    """Runs worth keeping raw: the first valid ones of each variant, then others, then those that are not valid."""
    done = [run for run in runs if run["status"] == "ok"]
    done.sort(key=lambda run: (run["verdict"] != "valid", run["run_id"]))
    firsts: dict[tuple, str] = {}
    for run in done:
        firsts.setdefault(tuple(run[name] for name in _KEPT_SEPARATE), run["run_id"])
    return list(dict.fromkeys([*firsts.values(), *(run["run_id"] for run in done)]))[:count]


def _hardware(results: Path) -> Iterator[Path]:
    folder = results / "hardware"
    for path in sorted(folder.glob("*")) if (folder / "report.md").exists() else ():
        if path.is_file() and path.suffix in (".md", ".svg", ".json", ".parquet"):
            yield path


def _provenance(results: Path, runs: list[Mapping[str, Any]], sources: list[str]) -> dict[str, Any]:
    """What the runs' own records say.

    A fact with several values keeps all of them, with the number of runs for each.
    """
    records = [read_json(path) for path in sorted(results.glob("runs/*/run.json"))]
    if not records:
        raise UserError(f"{results} has no finished run; measure first")
    facts: dict[str, Counter] = {}
    for record in records:
        environment = record["environment"]
        found = {name: environment[name] for name in ("device", "driver", "cuda", "python", "cpu")}
        found |= environment["packages"] | {"code_digest": record["code_digest"]}
        for name, value in found.items():
            facts.setdefault(name, Counter())[str(value)] += 1
    return {
        "schema": 1,
        "campaign": runs[0]["campaign"],
        "runs": len(runs),
        "verdicts": dict(Counter(run["verdict"] for run in runs)),
        "energy_sources": sources,
        "first_utc": min(record["started_utc"] for record in records),
        "last_utc": max(record["ended_utc"] for record in records),
        "protocol": records[0]["protocol"],
        "environment": {name: dict(values) for name, values in facts.items()},
        "licence": "CC-BY-4.0",
    }


def _readme(provenance: Mapping[str, Any]) -> Iterator[str]:
    environment = provenance["environment"]
    devices = ", ".join(environment["device"])
    yield f"# Campaign {provenance['campaign']}: {provenance['runs']} runs on {devices}\n"
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in provenance["verdicts"].items())
    yield f"Measured from {provenance['first_utc']} to {provenance['last_utc']};"
    yield f"energy: {', '.join(provenance['energy_sources'])}; verdicts: {verdicts}.\n"
    yield "- `tables/`: one row per run, one per region; `data_dictionary.md` has every column with its unit"
    yield "- `node/`: calibration and idle power of the machine"
    yield "- `runs/`: samples, markers and record of a few runs; `jouleline.energy` makes their rows anew"
    yield "- `provenance.json`: versions, protocol, and the SHA-256 of every file"
    yield "\n`make run` builds the report from these tables; nothing is measured.\n"
    yield "| with | value (runs) |\n|---|---|"
    for name, values in environment.items():
        yield f"| {name} | {', '.join(f'{value} ({count})' for value, count in values.items())} |"
    yield "\nThese data are licensed under the Creative Commons Attribution 4.0 International licence (CC-BY-4.0,"
    yield "https://creativecommons.org/licenses/by/4.0/). Cite the project as CITATION.cff says."
