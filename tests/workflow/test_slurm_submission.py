"""The sbatch line of every kind of job, to the letter."""

import re

from tests.workflow.sbatch_lines import by_geometry, checkout_of, line, rest_of, submitted

TABLES = "rule_tables_ask_accounting_check_runs_collect_runs_integrate_energy_split_runs"


def test_gpu_rows(recorder, tmp_path):
    """One node: all its devices as gres and no task count. Several nodes: one task and the gres on each."""
    rows = [{}, {"gpus_per_node": 4, "zero_stage": 1}, {"nodes": 2, "gpus_per_node": 4, "zero_stage": 1}]
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, *rows)
    lines = submitted(recorder, checkout, "measurements")
    found = {key: rest_of(text) for key, text in by_geometry(lines).items()}
    assert found == {
        "1x1": "-t 11 --mem 4505 --no-requeue --cpus-per-task=4 -D ROOT --exclusive --gres=gpu:1",
        "1x4": "-t 11 --mem 12020 --no-requeue --cpus-per-task=16 -D ROOT --exclusive --gres=gpu:4",
        "2x4": "-t 11 --mem 12020 --nodes=2 --no-requeue --ntasks=2 --cpus-per-task=16 -D ROOT --exclusive"
        " --gres=gpu:4",
    }
    assert len(lines) == 3  # one job per row, no array


def test_cpu_rows_ask_for_no_gres(recorder, tmp_path):
    rows = [{"gpus_per_node": 2, "zero_stage": 1}, {"nodes": 2, "gpus_per_node": 1, "zero_stage": 1}]
    checkout = checkout_of(tmp_path, {"exclusive": False}, {"device": "cpu", "threads_per_device": 3}, *rows)
    found = {
        key: rest_of(text) for key, text in by_geometry(submitted(recorder, checkout, "measurements")).items()
    }
    assert found == {
        "1x2": "-t 11 --mem 7032 --no-requeue --ntasks=1 --cpus-per-task=6 -D ROOT",
        "2x1": "-t 11 --mem 4516 --nodes=2 --no-requeue --ntasks=2 --cpus-per-task=3 -D ROOT",
    }


def test_whole_line_with_the_values_of_a_site(recorder, tmp_path):
    """Account, partition and constraint come from the site's profile alone."""
    checkout = checkout_of(
        tmp_path, {"gres": "gpu:h200"}, {"device": "cuda"}, {"gpus_per_node": 2, "zero_stage": 1}
    )
    site = ["--default-resources", "slurm_account=proj42", "slurm_partition=gpu", "constraint=nvlink"]
    lines = submitted(recorder, checkout, "measurements", *site)
    ((comment, text),) = lines.items()
    run_id = comment.removeprefix("rule_measure_run_wildcards_")
    rest = "-A proj42 -p gpu -t 11 -C nvlink --mem 7010 --no-requeue --cpus-per-task=8 -D ROOT --exclusive"
    rest += " --gres=gpu:h200:2"
    assert re.sub(" +", " ", text) == line(comment, "measure_run", run_id, rest)


def test_the_jobs_of_a_node(recorder, tmp_path):
    """Data set, calibration and idle power: one job each; the calibration sees the devices of the largest row."""
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {"gpus_per_node": 4, "zero_stage": 1})
    (checkout.root / "results/lines/dataset/docstrings-v2048.parquet").unlink()
    found = {key: rest_of(text) for key, text in submitted(recorder, checkout).items()}
    dataset = "rule_prepare_dataset_wildcards_docstrings-v2048"
    assert found == {
        dataset: "-t 30 --mem 4000 --no-requeue --ntasks=1 --cpus-per-task=1 -D ROOT",
        "rule_calibrate_node": "-t 30 --mem 12000 --no-requeue --cpus-per-task=16 -D ROOT --exclusive --gres=gpu:4",
        "rule_measure_idle": "-t 10 --mem 2000 --no-requeue --cpus-per-task=1 -D ROOT --exclusive --gres=gpu:4",
    }


def test_links_are_calibrated_for_every_number_of_nodes(recorder, tmp_path):
    """Like a row of as many nodes, with the most devices that such a row has."""
    rows = [{"nodes": 2, "zero_stage": 1}, {"nodes": 2, "gpus_per_node": 4, "zero_stage": 1}]
    checkout = checkout_of(
        tmp_path, {}, {"device": "cuda"}, {"gpus_per_node": 2}, *rows, {"nodes": 3, "zero_stage": 1}
    )
    found = submitted(recorder, checkout, "results/lines/node/calibration.json")
    assert {key: rest_of(text) for key, text in found.items()} == {
        "rule_calibrate_links_wildcards_2_4": "-t 30 --mem 12000 --nodes=2 --no-requeue --ntasks=2"
        " --cpus-per-task=16 -D ROOT --exclusive --gres=gpu:4",
        "rule_calibrate_links_wildcards_3_1": "-t 30 --mem 8000 --nodes=3 --no-requeue --ntasks=3"
        " --cpus-per-task=4 -D ROOT --exclusive --gres=gpu:1",
        "rule_calibrate_node": "-t 30 --mem 12000 --no-requeue --cpus-per-task=16 -D ROOT --exclusive --gres=gpu:4",
    }


def test_the_cheap_steps_share_two_jobs(recorder, tmp_path):
    """Tables; verdict and report: one job each. It asks for what its most demanding step needs."""
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {"gpus_per_node": 4, "zero_stage": 1})
    models = {"models": ["constant"], "headline": "constant"}
    checkout.campaign["analysis"] = {**models, "splits": ["H0"], "shards": 1}
    checkout.save()
    checkout.make_files()
    results = checkout.root / "results/lines"
    (results / "fit/constant/H0.json").write_text("another fit")
    verdict = submitted(recorder, checkout)
    next((results / "runs").glob("*/run.json")).write_text("another run")
    tables = submitted(recorder, checkout)
    assert {key: rest_of(text) for key, text in [*verdict.items(), *tables.items()]} == {
        "rule_verdict_predict_holdout_render_report_validate_holdout": "-t 35 --mem 4000 --no-requeue --ntasks=1"
        " --cpus-per-task=1 -D ROOT",
        TABLES: "-t 45 --mem 2000 --no-requeue --ntasks=1 --cpus-per-task=2 -D ROOT",
    }


def test_a_large_grid_is_one_job_a_run_and_one_for_all_tables(recorder, tmp_path):
    """The number of jobs besides the measurements does not grow with the rows."""
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, *({"seed": seed} for seed in range(24)))
    checkout.campaign["analysis"] = {"shards": 8, "models": ["roofline", "constant"]}
    checkout.save()
    lines = submitted(recorder, checkout)
    measured = {comment for comment in lines if "measure_run" in comment}
    assert len(measured) == 24 and set(lines) - measured == {"rule_calibrate_node", "rule_measure_idle"}
    checkout.make_files()
    for path in (checkout.root / "results/lines/runs").glob("*/run.json"):
        path.write_text("another run")
    lines = submitted(recorder, checkout)  # eight shards, collection, checks and splits
    assert {key: rest_of(text) for key, text in lines.items()} == {
        TABLES: "-t 45 --mem 8000 --no-requeue --ntasks=1 --cpus-per-task=8 -D ROOT"
    }


def test_a_sites_defaults_stand_beside_what_a_row_asks_for(recorder, tmp_path):
    """Memory per CPU does not replace the row's memory, nor the site's licences its `--exclusive`."""
    checkout = checkout_of(tmp_path, {}, {"device": "cuda"}, {})
    site = ["--default-resources", "mem_mb_per_cpu=100", "slurm_extra='--licenses=lic:1'"]
    (text,) = submitted(recorder, checkout, "measurements", *site).values()
    assert rest_of(text) == (
        "-t 11 --mem 4505 --no-requeue --cpus-per-task=4 --licenses=lic:1 -D ROOT --exclusive --gres=gpu:1"
    )
