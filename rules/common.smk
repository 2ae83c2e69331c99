# This file has no rules. It loads and checks the campaign, and has the functions that rules use.
# Every Slurm job parses it again on its node, so it imports nothing heavy.
import contextlib
import gc
import inspect
import itertools
import os
import shlex
import sys
from importlib import metadata
from pathlib import Path

# Two folders above this file. (The base folder of workflow/Snakefile, which the catalogue uses, is another one.)
ROOT = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(ROOT / "workflow"))

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from jouleline import provenance
from jouleline.campaign import config as campaigns
from jouleline.campaign import frugal, grid
from jouleline.campaign import resources as needs
from jouleline.campaign.protocol import measured_so
from jouleline.choose import ask
from jouleline.errors import UserError
from jouleline.files import canonical_json, read_json, require_shared, require_writable, write_json
from jouleline.patches import dry_run, finished, locks, shown
from jouleline.slurm import patch

# Snakemake keeps every job to the end. Searching ten thousand jobs for garbage again and again takes a seventh of a dry
# run.
gc.set_threshold(100_000)

# Jobs run with the interpreter of this environment (a container has its own), and with the library of this checkout,
# because its code digests are recorded.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    PYTHONPATH=str(ROOT / "workflow"),
    # Texts are UTF-8, whatever the locale of a user or a node.
    PYTHONUTF8="1",
)
# Settings for a Python at the prompt must not reach jobs. Transformers does not start without docstrings, a Python that
# stays open after its end waits for input, and a library's warning is no failure.
for name in ("PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONWARNINGS"):
    os.environ.pop(name, None)

if Path.cwd().resolve() != ROOT.resolve():
    # Jobs call scripts/... from here. With an absolute path in every command, another clone would rerun everything.
    raise WorkflowError(f"this is not the checkout that the workflow is in; run it there: cd {ROOT}")

try:
    campaigns.require_plain_path(ROOT)
    # Snakemake has read them too, but keeps only the last of a repeated key.
    for configfile in workflow.configfiles:
        campaigns.read_yaml(Path(configfile))
    CAMPAIGN = campaigns.load(config, ROOT)
    ALL_RUNS = CAMPAIGN.runs
    require_writable(CAMPAIGN.results)
    require_writable(".snakemake", "clone the checkout elsewhere, for Snakemake keeps its records in it")
    require_shared(".snakemake")
    for number, given in enumerate(CAMPAIGN.settings["choose"], 1):
        ask.make(given, f"choose, ask {number}")
except UserError as error:
    raise WorkflowError(str(error)) from None

SETTINGS = CAMPAIGN.settings
PROTOCOL = CAMPAIGN.protocol
if (
    workflow.is_main_process
    and PROTOCOL["device"] == "cuda"
    and metadata.version("torch").partition("+")[2] == "cpu"
):
    # This is only a warning: the campaign may be planned here, and measured in a container or another environment.
    logger.warning(
        f"protocol.device is cuda and torch {metadata.version('torch')} of this environment has no CUDA: every run of it "
        "would fail; run `make setup TORCH=cuda` before measuring"
    )
RESULTS = CAMPAIGN.results
patch.apply(RESULTS)
locks.keep_those_of_others()
if workflow.is_main_process and not (
    workflow.output_settings.printshellcmds or workflow.output_settings.verbose
):
    shown.shorten(workflow.output_settings.dryrun)
ANALYSIS = SETTINGS["analysis"]


wildcard_constraints:
    run_id=r"[^/]+",
    shard=r"\d+",
    model=r"\w+",
    split=r"\w+",


def run_file(run_id):
    return f"{RESULTS}/runs/{run_id}/run.json"


def run_files(runs):
    return [run_file(run.run_id) for run in runs]


MEASURING = {"measure_run", "measure_run_multinode"}
CALIBRATING = {"calibrate_node", "calibrate_links", "measure_idle"}


def is_measured(job):
    """Whether the run that a job makes is there, whole, and by the row, protocol and code of now."""
    if job.is_group() or job.rule.name not in MEASURING or not all(map(os.path.exists, job.output)):
        return False
    with contextlib.suppress(UserError, KeyError, TypeError):
        record = read_json(job.output.run)
        same = record["row_key"] == BY_RUN_ID[job.wildcards.run_id].key
        return same and measured_so(record, job.params.code, PROTOCOL)
    return False


# This comes before the locks, because only a process with a lock records what it kept.
finished.keep(is_measured)

# With `partial: true` the tables, model and report are made from the runs that are there now.
RUNS = [run for run in ALL_RUNS if Path(run_file(run.run_id)).exists()] if SETTINGS["partial"] else ALL_RUNS


def measures_nothing():
    """Whether this call only reads results: a plan, or a report of a part whose calibrations are there.

    Such a call may run beside a campaign in the same folder.
    """
    if set(workflow.dag_settings.targets) == {"plan"}:
        return True
    if len(RUNS) == len(ALL_RUNS):
        return False
    missing = sorted({job.rule.name for job in workflow.dag.needrun_jobs()} & (MEASURING | CALIBRATING))
    if missing:
        logger.warning(
            f"this part has yet to be measured for ({', '.join(missing)}): not beside a campaign that runs, which "
            "does it first"
        )
    return not missing


locks.none_where(measures_nothing)
if not RUNS:
    raise WorkflowError("partial: true, but no run is finished yet; measure first, or say partial: false")
BY_RUN_ID = {run.run_id: run for run in ALL_RUNS}

# The campaign chooses its own rows, round after round. A campaign packed elsewhere was chosen there.
FRUGAL = None if SETTINGS["data"] else SETTINGS["grid"].get("frugal")


def rounds(last=None):
    """{number: its runs} of the chosen rounds of a frugal campaign, up to the `last`.

    A caller may ask for a round that is not chosen yet. Because of the checkpoint, Snakemake then asks again later.
    """
    found = {}
    for number in itertools.count(1) if last is None else range(1, last + 1):
        path = frugal.path(RESULTS, number)
        if SETTINGS["partial"]:
            chosen = frugal.run_ids(read_json(path)) if Path(path).exists() else []
        else:
            chosen = frugal.run_ids(read_json(checkpoints.choose_rows.get(round=number).output.rows))
        if not chosen:
            break
        runs = [BY_RUN_ID[run_id] for run_id in chosen if run_id in BY_RUN_ID]
        found[number] = [
            run for run in runs if not SETTINGS["partial"] or Path(run_file(run.run_id)).exists()
        ]
    return found


def round_files(wildcards):
    """The rounds, with the one that ended the choice. With `partial` only those that are there."""
    count = sum(1 for _ in frugal.documents(RESULTS)) if SETTINGS["partial"] else len(rounds()) + 1
    return [frugal.path(RESULTS, number) for number in range(1, count + 1)]


def chosen_runs():
    """Every run. In a frugal campaign every chosen run."""
    return [run for runs in rounds().values() for run in runs] if FRUGAL else RUNS


def runs_of_shard(shard):
    """The runs that one job integrates. In a frugal campaign a round is a shard."""
    return rounds(shard)[shard] if FRUGAL else SHARDS[shard]


def energy_files(wildcards=None, before=None):
    """The integrated energies of all shards. In a frugal campaign: of the rounds `before` one, or of all."""
    if not FRUGAL:
        shards = sorted(SHARDS)
    elif before:
        shards = range(1, before)
    else:
        shards = [number for number, runs in rounds().items() if runs]
    return [f"{RESULTS}/energy/shard-{shard}.parquet" for shard in shards]


SHARDS = {}
for run in RUNS:
    SHARDS.setdefault(grid.shard_of(run.run_id, ANALYSIS["shards"]), []).append(run)
# Linux allows 128 KiB in one argument, and the names of a shard's runs are one argument.
if not FRUGAL and max(sum(len(path) + 1 for path in run_files(runs)) for runs in SHARDS.values()) > 120_000:
    raise WorkflowError(
        f"{len(RUNS)} runs are too many for analysis.shards = {ANALYSIS['shards']}; give more"
    )


def unless_data(shell):
    """The shell of a rule. Where the campaign has the key `data`, the outputs come from that folder."""
    return IMPORT if SETTINGS["data"] else shell


IMPORT = f"python scripts/import_data.py --data {SETTINGS['data']} --campaign {CAMPAIGN.name} --out {{output}} > {{log}} 2>&1"


def code_digest(*scripts, **options):
    """Digest of the code behind some scripts: the parameter that reruns a rule when its code changes."""
    return provenance.code_digest([ROOT / "scripts" / f"{name}.py" for name in scripts], **options)


def measuring_code(*scripts):
    """Like code_digest, but only for modules that can change a measured number."""
    return code_digest(*scripts, within="jouleline.measure")


# The digest of the runs. `jouleline status` works out the same one.
MEASURING_CODE = provenance.measuring_digest(ROOT)


def of_run(function):
    """A function of the wildcard `run_id`, as rules take it. If all runs have the same value: this value.

    Snakemake calls every function for every job, and asks for its signature first. So there are few functions, and
    the signature is worked out once.
    """
    first = function(ALL_RUNS[0])
    if all(function(run) == first for run in ALL_RUNS):
        return first

    def value(wildcards):
        return function(BY_RUN_ID[wildcards.run_id])

    value.__signature__ = inspect.signature(value)
    return value


@of_run
def row_key(run):
    """The canonical row as ONE string: Snakemake compares parameters without their names."""
    return run.key


# File name of a prepared data set: a row that uses it.
DATASETS = {grid.dataset_name(run.row): run.row for run in ALL_RUNS}


@of_run
def dataset_of(run):
    return f"{RESULTS}/dataset/{grid.dataset_name(run.row)}.parquet"


# The calibrations come before the rows. So reports of a part can be made while rows are measured.
BEFORE_ROWS = 2**31


@of_run
def order_priority(run):
    """The order of measurement, by a seed. Everything else has priority 0, or BEFORE_ROWS."""
    return grid.order_priority(run.run_id, SETTINGS["order_seed"])


# Resources are never parameters, so that a site's limits measure nothing again.
# `exclusive` is a resource of its own, because `slurm_extra` belongs to the site.
EXCLUSIVE = "yes" if SETTINGS["node"]["exclusive"] else None


def gres(devices):
    return needs.gres(devices, SETTINGS["node"]["gres"], PROTOCOL)


def checkpoint_option(row):
    return f"--checkpoint {shlex.quote(row['checkpoint'])}" if row["checkpoint"] else ""


def asked_of_nodes():
    """What the rows need of a node besides its devices, as options of `jouleline doctor`."""
    precisions = sorted({run.row["precision"] for run in ALL_RUNS})
    hub = any(row["dataset"].startswith("glue/") or row["checkpoint"] for row in DATASETS.values())
    return " ".join([f"--precision {one}" for one in precisions] + ["--hub"] * hub)


def calibrated_devices():
    """The number of GPUs in the calibration; 0 without one. On a CPU it uses as many ranks as there is room for."""
    try:
        known = read_json(f"{RESULTS}/node/device.json")
        return known["software"]["devices"] if known["device_kind"] == "cuda" else 0
    except (UserError, KeyError, TypeError):
        return 0


# ---- Targets of the analysis

SPLITS = [*ANALYSIS["splits"], "all"]


def fit_files(splits=SPLITS):
    return [f"{RESULTS}/fit/{model}/{split}.json" for model in ANALYSIS["models"] for split in splits]


def split_files():
    return [f"{RESULTS}/splits/{split}.json" for split in SPLITS]


def prediction_files():
    return [
        f"{RESULTS}/predictions/{model}/{split}.parquet"
        for model in ANALYSIS["models"]
        for split in ANALYSIS["splits"]
    ]


def options_of(kind):
    """Canonical JSON of the options of one model or split. So options of another one refit nothing here."""
    return lambda wildcards: canonical_json(ANALYSIS[f"{kind}_options"].get(wildcards[kind], {}))


# Whether anything could be measured next: candidates of an ask, or rows that are not measured.
SUGGESTS = bool(SETTINGS["choose"] or FRUGAL or len(RUNS) < len(ALL_RUNS))
# The keys of the plan that turn kWh into money and CO2.
PRICES = {name: SETTINGS["plan"][name] for name in ("price_per_kwh", "currency", "grid_gco2_per_kwh", "pue")}


def rows_to_predict(wildcards):
    # Without the key, Snakemake reports this text as the missing file.
    return SETTINGS["predict"]["rows"] or "(predict.rows is not given: name a CSV file of configurations)"
