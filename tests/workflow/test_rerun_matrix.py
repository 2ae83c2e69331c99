"""What a change reruns, line by line. Measurements are expensive, so nothing may measure again without need.

Every line holds for the local and for the Slurm profile, whichever made the results. Results of real Slurm jobs are
planned with both profiles, and both must agree. Results made by touch are planned with both where the profile could
matter.
"""

import copy
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.slurm.campaign import SNAPPY, Campaign
from tests.workflow.checkout import Checkout, change_a_constant

SHAPE = {"hidden": 64, "heads": 2, "intermediate": 256, "seq_len": 32, "micro_batch": 4}
CAMPAIGN = {
    "campaign": "matrix",
    "node": {"gpus": 2, "exclusive": False},
    "protocol": {
        **{"device": "cpu", "meter": "estimate", "window_s": 1, "warmup_steps": 2, "warmup_max_steps": 4},
        **{"idle_s": 0.3, "eval_batches": 1, "calibration_s": 5},
    },
    "grid": {
        "defaults": {"vocab_size": 8192},
        "blocks": [{"axes": {"layers": [1, 2]}, "set": SHAPE}],
        "rows": [
            {"layers": 3, **SHAPE, "split": "train"},
            {"layers": 4, **SHAPE, "micro_batch": 8, "split": "holdout"},
            {"layers": 1, **SHAPE, "nodes": 2, "zero_stage": 1},
        ],
    },
    "analysis": {"models": ["roofline", "constant"], "splits": ["H0", "holdout"], "shards": 2},
}
MEASURING = {"measure_run", "measure_run_multinode"}
REDUCE = {"integrate_energy", "ask_accounting", "collect_runs", "check_runs"}
FIT = {"fit_model", "predict_holdout", "validate_holdout"}
DOWNSTREAM = REDUCE | FIT | {"split_runs", "render_report"}
GRID = {"write_grid", "write_config"}


PROFILES = ("profiles/local", "slurm")


class Matrix(Checkout):
    profiles = PROFILES[:1]

    def planned(self, *arguments: str) -> dict[str, set[str]]:
        """What would run, {rule: outputs}. It must be the same with every profile."""

        def plan(profile: str) -> dict[str, set[str]]:
            return super(Matrix, self).planned("--profile", profile, *arguments)

        with ThreadPoolExecutor() as pool:
            first, *others = pool.map(plan, self.profiles)
        assert all(jobs == first for jobs in others)
        return first


def make_on_slurm(checkout: Checkout, cluster) -> None:
    """A real Slurm job makes every result."""
    arguments = ["--profile", "slurm", *SNAPPY, "--configfile", "campaign.yaml"]
    with Campaign(cluster, checkout.root, *arguments) as campaign:
        assert campaign.wait(600) == 0, campaign.said()


@pytest.fixture(
    scope="module", params=["touch", pytest.param("slurm", marks=[pytest.mark.long, pytest.mark.slurm])]
)
def finished(request, tmp_path_factory):
    """A checkout with every result."""
    checkout = Matrix(tmp_path_factory.mktemp("matrix") / "checkout", CAMPAIGN)
    if request.param == "slurm":
        checkout.profiles = PROFILES
        make_on_slurm(checkout, request.getfixturevalue("slurm_session"))
    else:
        checkout.make_by_touch()
    assert checkout.planned() == {}
    return checkout


@pytest.fixture
def checkout(finished, tmp_path):
    """A copy of the finished checkout, times kept."""
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    twin = copy.copy(finished)
    twin.root, twin.campaign = tmp_path / "copy", copy.deepcopy(CAMPAIGN)
    return twin


@pytest.fixture
def both(checkout):
    """The same, planned with both profiles."""
    checkout.profiles = PROFILES
    return checkout


def measured(jobs) -> int:
    """How many runs would be measured."""
    return sum(path.endswith("run.json") for rule in MEASURING for path in jobs.get(rule, ()))


def test_nothing_changed_reruns_nothing(both):
    assert both.planned() == {}


def test_a_new_row_measures_itself(both):
    both.campaign["grid"]["rows"].append({"layers": 5, **SHAPE})
    both.save()
    jobs = both.planned()
    assert measured(jobs) == 1 and set(jobs) <= MEASURING | DOWNSTREAM | GRID | {"write_labels"}
    assert {"collect_runs", "fit_model", "render_report"} <= set(jobs)


def test_a_row_on_another_number_of_nodes_calibrates_its_links_and_no_device(checkout):
    checkout.campaign["grid"]["rows"].append({"layers": 1, **SHAPE, "nodes": 3, "zero_stage": 1})
    checkout.save()
    jobs = checkout.planned()
    assert measured(jobs) == 1 and jobs["calibrate_links"] == {"results/matrix/node/links-N3x1.json"}
    assert "calibrate_node" not in jobs and {"collect_calibration", "fit_model"} <= set(jobs)


def test_more_devices_of_a_node_calibrate_it_again_and_fewer_do_not(checkout):
    checkout.campaign["grid"]["rows"].append({"layers": 1, **SHAPE, "gpus_per_node": 2, "zero_stage": 1})
    checkout.save()
    assert "calibrate_node" in checkout.planned()
    checkout.snakemake("--touch", "--forceall", "--cores", "2")
    (checkout.root / "results/matrix/node/device.json").write_text(
        '{"device_kind": "cuda", "software": {"devices": 2}}'
    )
    checkout.snakemake("--touch", "--cores", "2")
    checkout.campaign["grid"]["rows"].pop()
    checkout.save()
    assert "calibrate_node" not in checkout.planned()


def test_a_new_value_of_an_axis_measures_its_rows(checkout):
    checkout.campaign["grid"]["blocks"][0]["axes"]["layers"] = [1, 6, 2]
    checkout.save()
    assert measured(checkout.planned()) == 1


def test_one_hyper_parameter_measures_that_row(checkout):
    checkout.campaign["grid"]["rows"][0]["learning_rate"] = 1e-3
    checkout.save()
    jobs = checkout.planned()
    assert measured(jobs) == 1 and "render_report" in jobs


def test_two_values_of_a_row_swapped_measure_that_row(checkout):
    row = checkout.campaign["grid"]["rows"][0]
    row["seq_len"], row["hidden"] = row["hidden"], row["seq_len"]
    checkout.save()
    assert measured(checkout.planned()) == 1


def test_rows_in_another_order_rerun_no_measurement_and_no_fit(checkout):
    grid = checkout.campaign["grid"]
    grid["rows"].reverse()
    grid["rows"] = [dict(reversed(row.items())) for row in grid["rows"]]
    grid["blocks"][0]["axes"]["layers"] = [2, 1]
    checkout.save()
    assert checkout.planned() == {}


def test_comments_docstrings_and_format_rerun_nothing(checkout):
    for name in ("scripts/measure_run.py", "scripts/fit_model.py", "workflow/jouleline/measure/__init__.py"):
        path = checkout.root / name
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("# A comment.\n" + "".join(lines) + "\n\n# Another.\n")
    rules = checkout.root / "rules" / "measure.smk"
    rules.write_text("# A comment.\n\n" + rules.read_text())
    assert checkout.planned() == {}


def test_a_touch_of_code_and_data_set_measures_nothing(checkout):
    for path in [*(checkout.root / "scripts").glob("*.py"), *(checkout.root / "workflow").rglob("*.py")]:
        path.touch()
    for path in (checkout.root / "results/matrix/dataset").iterdir():
        path.touch()
    assert checkout.planned() == {}


def test_a_fresh_clone_with_copied_results_reruns_nothing(checkout):
    shutil.rmtree(checkout.root / ".snakemake")
    for path in [*(checkout.root / "scripts").glob("*.py"), *(checkout.root / "rules").glob("*.smk")]:
        path.touch()
    assert checkout.planned() == {}


def test_train_and_holdout_swapped_reruns_that_split_and_what_follows(checkout):
    for row in checkout.campaign["grid"]["rows"][:2]:
        row["split"] = {"train": "holdout", "holdout": "train"}[row["split"]]
    checkout.save()
    jobs = checkout.planned()
    assert set(jobs) <= {"write_labels", "split_runs", "render_report"} | FIT
    assert jobs["split_runs"] == {"results/matrix/splits/holdout.json"}
    assert all(path.endswith("/holdout.json") for path in jobs["fit_model"])


def test_a_new_split_fits_itself(checkout):
    checkout.campaign["analysis"]["splits"].append("H1")
    checkout.save()
    jobs = checkout.planned()
    assert jobs["split_runs"] == {"results/matrix/splits/H1.json"}
    assert {path.rsplit("/", 1)[1] for path in jobs["fit_model"]} == {"H1.json"}
    assert set(jobs) <= FIT | {"split_runs", "render_report", "write_config"}


def test_a_models_option_refits_that_model(checkout):
    checkout.campaign["analysis"]["model_options"] = {"roofline": {"starts": 128}}
    checkout.save()
    jobs = checkout.planned()
    assert jobs["fit_model"] and all("/fit/roofline/" in path for path in jobs["fit_model"])
    assert set(jobs) <= FIT | {"render_report", "write_config"}


def test_a_new_column_at_its_frozen_default_measures_nothing(checkout):
    """The runs table gains the column, so what reads that table runs again."""
    new = '    _C("dropout", "float64", "", "Dropout of the encoder", 0.1),\n)\n\nBY_NAME'
    checkout.edit("workflow/jouleline/schemas/row.py", ")\n\nBY_NAME", new)
    assert measured(checkout.planned()) == 0


def test_a_new_protocol_key_at_its_frozen_default_measures_nothing(checkout):
    new = 'PROTOCOL: tuple[Column, ...] = (\n    _key("dim_lights", 0, "", "New"),\n'
    checkout.edit("workflow/jouleline/campaign/protocol.py", "PROTOCOL: tuple[Column, ...] = (\n", new)
    assert measured(checkout.planned()) == 0


def test_memory_partition_and_run_time_rerun_nothing(both):
    both.edit("workflow/jouleline/campaign/resources.py", "return 2000 + row", "return 4000 + row")
    both.campaign["node"] |= {"exclusive": True, "gres": "gpu:h100"}
    both.save()
    assert (
        both.planned("--set-resources", "measure_run:slurm_partition=other", "measure_run:runtime=99") == {}
    )


def test_a_row_deleted_makes_the_aggregates_again(checkout):
    checkout.campaign["grid"]["rows"].pop()  # the only one on two nodes
    checkout.save()
    jobs = checkout.planned()
    assert not {"calibrate_links", "calibrate_node"} & set(jobs)
    assert measured(jobs) == 0 and "collect_runs" in jobs and "render_report" in jobs


def test_measuring_code_measures_everything_and_touch_accepts_the_old_results(checkout):
    path = checkout.root / "scripts/measure_run.py"
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    assert measured(checkout.planned()) == 5
    checkout.snakemake("--touch", "--cores", "2")
    assert checkout.planned() == {}


SOME = ("sidecar/lanes", "meters/nvml", "train/trainer")
OTHERS = (
    *("sidecar/process", "sidecar/writer", "sidecar/client", "raw/samples", "raw/markers", "meters/rapl"),
    *("train/data", "node/ranks", "node/agent"),
)


@pytest.mark.parametrize(
    "module", [*SOME, *(pytest.param(module, marks=pytest.mark.long) for module in OTHERS)]
)
def test_one_constant_of_what_measures_measures_everything(checkout, module):
    change_a_constant(checkout.root / f"workflow/jouleline/measure/{module}.py")
    assert measured(checkout.planned()) == 5


def test_the_protocol_measures_everything(both):
    both.campaign["protocol"]["window_s"] = 2
    both.save()
    assert measured(both.planned()) == 5


def test_fitting_code_refits_and_nothing_before(checkout):
    path = checkout.root / "scripts/fit_model.py"
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    jobs = checkout.planned()
    assert "fit_model" in jobs and set(jobs) <= FIT | {"render_report"}


def test_report_code_makes_the_report(checkout):
    path = checkout.root / "scripts/render_report.py"
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    assert set(checkout.planned()) == {"render_report"}
