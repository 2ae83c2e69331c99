"""What snakemake tells a user who made a mistake: what, where, remedy, and no traceback."""

import copy
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import forked
import pytest

from tests.workflow.checkout import Checkout

ROW = {"layers": 2, "hidden": 64, "heads": 2, "intermediate": 256, "seq_len": 32, "micro_batch": 4}
CAMPAIGN = {"campaign": "bad", "protocol": {"device": "cpu"}, "node": {"gpus": 4}, "grid": {"rows": [ROW]}}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("bad") / "checkout", CAMPAIGN)


def told(checkout, *arguments, **keys):
    """Output of a snakemake that must fail, for a campaign with some keys changed."""
    checkout.campaign = {**copy.deepcopy(CAMPAIGN), **keys}
    checkout.save()
    done = checkout.snakemake(*(arguments or ("-n",)), check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def good(checkout, **keys):
    """The checkout with a valid campaign."""
    checkout.campaign = {**copy.deepcopy(CAMPAIGN), **keys}
    checkout.save()
    return checkout


def test_a_key_that_stands_twice_is_refused_wherever_the_campaign_is(checkout):
    path = checkout.root / "config/campaigns/twice.yaml"
    text = "campaign: twice\nprotocol: {device: cpu}\ngrid: {rows: [{layers: 1}]}\nprotocol: {idle_s: 1}\n"
    path.write_text(text)
    done = checkout.snakemake("-n", "--configfile", str(path), check=False)
    assert done.returncode and "lines 2 and 4: the key 'protocol' stands twice" in done.stdout
    command = [sys.executable, "-m", "snakemake", "-n", "--config", "campaign=twice"]
    done = forked.run(forked.SNAKEMAKE, command, cwd=checkout.root, capture_output=True, text=True)
    assert done.returncode and "lines 2 and 4: the key 'protocol' stands twice" in done.stdout + done.stderr
    path.unlink()


@pytest.mark.skipif(not version("torch").endswith("+cpu"), reason="this torch has CUDA")
def test_a_torch_without_cuda_is_told_before_any_job_where_the_device_is_cuda(checkout):
    for device, count in (("cuda", 1), ("cpu", 0)):
        told = good(checkout, protocol={"device": device}).snakemake("-n").stdout
        assert told.count("has no CUDA: every run of it would fail; run `make setup TORCH=cuda`") == count


@pytest.mark.parametrize("name", ["a b", "x;y"])
def test_a_checkout_at_a_path_that_a_shell_reads_is_told_at_once(tmp_path, name):
    text = told(Checkout(tmp_path / name, CAMPAIGN))
    assert "the checkout's path" in text and "which a shell reads; move it" in text


def test_braces_in_a_text_are_no_wildcard(checkout):
    """Snakemake fills them in a parameter that is given as a string."""
    keys = {"plan": {"currency": "{x}' $HOME %s", "device": "{y}"}, "report": {"title": "{z}"}}
    good(checkout, **keys, grid={"rows": [{**ROW, "label": "{a} ' b"}]}).snakemake("-n", "all", "plan")


def rows(*changes):
    return {"rows": [{**ROW, **change} for change in changes]}


def test_every_bad_row_and_key_is_told_at_once_before_any_job(checkout):
    text = told(
        checkout,
        grid=rows(
            {"heads": 3},
            {"gpus_per_node": 4, "tensor_parallel": 4},
            {"micro_batch": None, "global_batch": 7, "gpus_per_node": 2},
            {"precision": "fp16"},
            {"gpus_per_node": 8},
            {"hiden": 1},
        ),
    )
    assert "6 problems in the grid" in text
    for expected in (
        "grid.rows[0] (layers=2 hidden=64 heads=3",
        "hidden 64 is not divisible by heads 3",
        "tensor_parallel 4 is more than heads 2",
        "global_batch 7 is not divisible",
        "fp16 does not train on a CPU",
        "gpus_per_node 8 is more than the 4 a node has",
        "unknown column 'hiden'",
    ):
        assert expected in text


def test_rows_on_several_nodes_need_what_starts_them(checkout):
    if shutil.which("srun"):
        pytest.skip("this machine has srun")
    text = told(
        checkout, "--cores", "1", grid=rows({}, {"nodes": 2, "zero_stage": 1}, {"nodes": 3, "zero_stage": 1})
    )
    (line,) = {line for line in text.splitlines() if "started by srun" in line}
    assert "rows on several nodes (2, 3)" in line and "--profile slurm" in line
    assert not (checkout.root / "results").exists()
    # A campaign on single nodes is not stopped.
    checkout.snakemake("--cores", "1", "results/bad/grid.json")
    shutil.rmtree(checkout.root / "results")


def test_an_unknown_key_and_a_wrong_type(checkout):
    text = told(checkout, resluts="x", order_seed="first")
    assert "unknown key resluts; known are" in text and "order_seed: must be integer" in text


def test_a_missing_table(checkout):
    assert "missing file" in told(checkout, grid={"table": "rows.csv"})


def test_an_unknown_campaign_says_which_there_are(checkout):
    checkout.campaign = {"campaign": "nope"}
    checkout.save()
    done = checkout.snakemake("-n", check=False)
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "campaign 'nope' has no file" in done.stdout and "known are" in done.stdout


def test_results_that_cannot_be_written(checkout):
    (checkout.root / "taken").write_text("a file")
    text = told(checkout, "--cores", "1", "plan", results="taken")
    assert "taken is a file, so nothing can go to taken/bad; move it, or set `results`" in text


def test_a_checkout_that_cannot_keep_records(checkout):
    """A read-only one, say."""
    records = checkout.root / ".snakemake"
    shutil.rmtree(records, ignore_errors=True)
    records.touch()
    text = told(checkout, "--cores", "1", "plan")
    records.unlink()
    assert (
        ".snakemake; move it, or clone the checkout elsewhere, for Snakemake keeps its records in it" in text
    )


def test_predict_without_rows(checkout):
    assert "predict.rows is not given" in told(checkout, "-n", "--", "predict")


def test_partial_without_runs(checkout):
    assert "no run is finished yet" in told(checkout, partial=True)


def test_another_folder_than_the_checkout_is_refused(checkout, tmp_path):
    root = good(checkout).root
    files = [str(root / name) for name in ("campaign.yaml", "config/config.yaml")]
    command = [sys.executable, "-m", "snakemake", "-s", str(root / "Snakefile"), "-n", "--configfile", *files]
    done = forked.run(forked.SNAKEMAKE, command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and f"cd {root}" in done.stderr + done.stdout


def test_the_file_where_the_catalogue_looks_makes_the_report(checkout):
    text = good(checkout).snakemake("-s", "workflow/Snakefile", "--cores", "1", "-n").stdout
    assert "render_report" in text and "measure_run" in text
    # The table: each job by itself would be ten lines more.
    assert len(text.splitlines()) < 50 and "Write the report" not in text
    assert "Write the report" in good(checkout).snakemake("--cores", "1", "-n", "-p").stdout


def test_without_slurms_commands_nothing_waits_for_them(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    arguments = ("--profile", "profiles/slurm", "--", "smoke")
    done = good(checkout).snakemake(*arguments, check=False, timeout=120)
    assert done.returncode and "sbatch and squeue not found; load Slurm's module" in done.stdout


NOBODY = ("unshare", "--user", "--map-user=54321", "--map-group=54321")


@pytest.mark.skipif(subprocess.run([*NOBODY, "true"]).returncode != 0, reason="no user namespaces here")
def test_a_uid_without_a_name_whose_home_cannot_be_written_plans_as_anybody(checkout, tmp_path):
    """With what `make setup` lets every Python of the environment import; Snakemake alone ends in a traceback."""
    root = good(checkout).root
    start = "import jouleline.home; from snakemake.cli import main; main()"
    names = ("USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"HOME": "/proc/none", "TMPDIR": str(tmp_path), "PYTHONPATH": str(root / "workflow")}
    command = [*NOBODY, sys.executable, "-c", start, "-n", "--configfile", "campaign.yaml"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "measure_run" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.glob("jouleline-*")] == ["jouleline-54321"]


def test_a_title_with_braces_is_a_title(checkout):
    good(checkout, report={"title": "Energy of {model} at {x}"}).snakemake("--cores", "1", "-n")
