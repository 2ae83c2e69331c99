"""Score every model on the public measured tables, where they lie, and write the scores with the gates beside them.

The tables are not part of this project: ECAI 2025 (Mayaki & Charpenay, MIT) and MLPerf Training power (Apache-2.0).
"""

import argparse
import os
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import run_script, write_text

ECAI_MODELS = (
    *("hybrid", "roofline", "paper", "gaussian_process", "gradient_boosting", "power_law", "additive"),
    *("flops", "six_nd", "constant", "tdp_time", "tdp_time_measured"),
)
FEW_SHOT_DRAWS = 12
ECAI_SPLITS = {"H8": {}, "H0": {"seeds": 5}, "H2": {}, "H3": {}, "H6": {"draws": FEW_SHOT_DRAWS}}
ECAI_OPTIONS = {"bootstrap": 0, "profile": False}
"""As shipped, but for what only a fit on every row carries."""

# Bars on these tables: (label, split, model, mode, limit). Published: additive fit 12.6 %, gradient boosting 10.8 %.
ECAI_BARS = (
    ("better than the additive fit", "H8", "roofline", "modelled", 0.126),
    ("better than the additive fit", "H8", "hybrid", "modelled", 0.126),
    ("better than gradient boosting", "H8", "roofline", "modelled", 0.108),
    ("better than gradient boosting", "H8", "hybrid", "modelled", 0.108),
)
MLPERF_BARS = (
    ("512 GPUs from 8 and 64, after the run", "H5", "count_law", "measured", 0.05),
    ("512 GPUs from 8 and 64, before the run", "H5", "count_law", "modelled", 0.05),
)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the scores."""
    folder = os.environ.get("JOULELINE_PUBLIC_DATA", "")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", default=folder, help="folder of the tables; default: $JOULELINE_PUBLIC_DATA"
    )
    parser.add_argument("--out", required=True, help="Markdown to write, such as docs/scores.md")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.report.card import score_lines
    from jouleline.report.markdown import markdown
    from jouleline.report.score_tables import gate_table

    if not args.data:
        raise UserError("no folder of public tables; give --data or set JOULELINE_PUBLIC_DATA")
    lines = [_HEAD]
    data = Path(args.data)
    table = _columns(data / "ecai2025_transformer.csv", "ecai2025")
    ecai, predictions = _scores(table, "ecai2025", ECAI_MODELS, ECAI_SPLITS, ECAI_OPTIONS)
    lines += ["## ECAI 2025: training steps on one GPU", "", _ECAI, "", *_bars(ecai, ECAI_BARS), ""]
    lines += [
        *score_lines(ecai["results"], ecai["noise_floor"]),
        "### Gates",
        "",
        *markdown(gate_table(ecai["gates"])),
        "",
        *_ranking(table),
        "",
        *_few_shot(predictions["H6", ECAI_MODELS[0]]),
        "",
    ]
    mlperf, _ = _scores(
        _columns(data / "mlperf_power_runs.csv", "mlperf_llama2_lora"),
        *("mlperf_llama2_lora", ("count_law", "count_law_phi_one"), {"H5": {"within_family": True}}, {}),
    )
    lines += ["## MLPerf Training: Llama-2-70B LoRA on 8, 64 and 512 H100", "", _MLPERF, ""]
    lines += [*_bars(mlperf, MLPERF_BARS), "", *score_lines(mlperf["results"], mlperf["noise_floor"])]
    write_text(args.out, "\n".join(lines) + _frugal(Path(args.out)))


def _frugal(path: Path) -> str:
    """The page's last section, which `score_frugal.py` makes: it stays."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    start = text.find("\n## Frugal choice of rows")
    return "" if start < 0 else text[start:]


def _columns(path: Path, mapping: str) -> dict:
    from jouleline.model.table.mappings import BUILT_IN, convert
    from jouleline.model.table.runs import complete, read_columns

    return complete(convert(read_columns(path), BUILT_IN[mapping], str(path)), str(path))


def _scores(columns: dict, name: str, models: tuple, splits: dict, options: dict) -> tuple[dict, dict]:
    """(validation.json, the predictions by split and model)."""
    from jouleline.model.judge.validate import validate

    fits, tables = [], {}
    for split_name, split_options in splits.items():
        for model in models:
            fit, table = _held_out(columns, split_name, split_options, model, options)
            fits.append(fit)
            tables[split_name, model] = table
            print(f"{name} {split_name} {model}", flush=True)
    return validate(columns, list(tables.values()), fits, {}, models[0]), tables


def _held_out(columns: dict, split_name: str, split_options: dict, model: str, options: dict) -> tuple:
    """(fit.json, predictions) of a model on a split."""
    from jouleline.model.fit.fitting import fit_split
    from jouleline.model.fit.predict import predict_split
    from jouleline.model.judge.splits import split_runs

    split = split_runs(columns, split_name, split_options)
    fit = fit_split(columns, split, model, None, options)
    return fit, predict_split(columns, split, fit)


def _ranking(columns: dict) -> list[str]:
    """What a model would score in the two gates of ranking whose only error is a given one."""
    import numpy as np
    from jouleline.model.judge import metrics
    from jouleline.model.judge.splits import split_runs
    from jouleline.model.table.runs import take

    ids = columns["run_id"].astype(str)
    folds = [np.isin(ids, f["test"]) for f in split_runs(columns, "H0", ECAI_SPLITS["H0"])["folds"]]
    lines = [_RANKING, "", "| error of a prediction | Kendall tau | cheapest found |", "|---|---|---|"]
    for error in (0.002, 0.005, 0.01, 0.02, 0.04):
        parts = [take(columns, fold) for fold in folds]
        found = [metrics.choice(part, part["energy_j"], noise=error) for part in parts]
        groups = [one["n_choice_groups"] for one in found]
        tau, top1 = (
            np.average([one[f"{name}_ceiling"] for one in found], weights=groups)
            for name in ("kendall_tau", "top1")
        )
        lines.append(f"| {error:.1%} | {tau:.2f} | {top1:.0%} |")
    return lines


def _few_shot(table: dict) -> list[str]:
    """The error on each device from a few of its runs, drawn and planned."""
    import numpy as np

    lines = [
        _FEW_SHOT,
        "",
        "| device that was left out | its runs | draws identified | mean MAPE of these | worst | planned |",
        "|---|---|---|---|---|---|",
    ]
    drawn: dict[str, list[float]] = {}
    planned: dict[str, float] = {}
    for fold in dict.fromkeys(table["fold"].tolist()):
        own = (table["fold"] == fold) & table["identified"].astype(bool)
        name, few, how = fold.partition("-runs")
        if not few or not own.any():
            continue
        ape = float(np.abs(table["predicted_energy_j"][own] / table["energy_j"][own] - 1).mean())
        if how == "-planned":
            planned[name] = ape
        else:
            drawn.setdefault(name, []).append(ape)
    for name, errors in sorted(drawn.items()):
        device, _, shots = name.rpartition("-")
        share = f"{len(errors)} of {FEW_SHOT_DRAWS}"
        plan = f"{planned[name]:.1%}" if name in planned else "not identified"
        cells = (device, shots, share, f"{np.mean(errors):.1%}", f"{max(errors):.1%}", plan)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _bars(validation: dict, bars: tuple) -> list[str]:
    lines = ["| bar | split | model | efficiency | limit | MAPE | passed |", "|---|---|---|---|---|---|---|"]
    for label, split, model, mode, limit in bars:
        wanted = {
            "split": split,
            "model": model,
            "efficiency_mode": mode,
            "target": "energy",
            "stratum": None,
        }
        rows = [
            row for row in validation["results"] if all(row[key] == value for key, value in wanted.items())
        ]
        value = rows[0]["mape"] if rows else None
        text = "not identified" if value is None else f"{value:.1%}"
        passed = "yes" if value is not None and value <= limit else "no"
        lines.append(f"| {label} | {split} | {model} | {mode} | {limit:.1%} | {text} | {passed} |")
    return lines


_HEAD = """# Scores on public measured tables

Generated by `scripts/score_public_tables.py`; do not edit. The tables are read where they lie and are not part of this
project. MAPE is of held-out rows; the interval resamples families. "post-run" uses what is measured on the row itself,
so it is an upper bound on a prediction. Against the paper's law: error less that of the law (parametric efficiency) on
the same predictions, in percentage points. Outside energies are never pooled with measured ones.
"""

_ECAI = """643 different measurements of 1,576 rows (the others repeat them), two GPUs. H8 leaves a tenth of the shapes
(layers, width, heads) out at a time. Fits here start from 16 points and H0 draws 5 times, to keep the script short.
The A100 multiplies in TF32, the RTX 2080 Ti in fp32, and neither is calibrated: data sheets do not tell what one
precision reaches beside another, so nothing is said of a GPU before a run on it, nor of its 75 rows in fp16 before one
in fp16. The gates judge the hybrid, the model that is shipped."""

_RANKING = """### What the gates of ranking ask for

Configurations of equal work differ in this table only in their batch size, and their joules per token by 3 % (median
over the groups, largest over smallest). Nothing was measured twice, so the noise is not known, and the gates have no
ceiling beside them. This is what a model would score on the folds of H0 whose only error is the one in the first
column (log-normal, independent), were the measured energies the truth: to pass, its predictions, and the measurements
themselves, have to be right to a few parts in a thousand."""

_FEW_SHOT = f"""### A new device from a few of its runs

H6 with the hybrid, by {FEW_SHOT_DRAWS} random draws of the device's runs, and with the runs that are best measured
first (greedy D-optimal in what is known before any run). The A100 is predicted from 49 runs of the other, which span a
small part of its range, and a few of its own; without one of these in fp16, its rows in fp16 are not identified."""

_MLPERF = """Ten runs at each of three device counts, node wall power. It is one workload, so the largest count is
predicted from the smaller ones of the same workload: E(N)/E(N0) = phi/eta + 1 - phi, with phi and the loss of
efficiency per doubling fitted at 64. With phi = 1 (mean power does not change with N) energy goes as 1/eta. In some of
the runs on 64 and 512 not every node was logged (at least three quarters were); the table scales those up."""


if __name__ == "__main__":
    raise SystemExit(main())
