"""Every command and every script meets everything that an operating system may refuse of every file it is given.

One line that names the file, its cause and a remedy, and exit code 2; no traceback, and what the user wrote stays.
"""

import functools
import hashlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import socket
from pathlib import Path

import fabricated_campaign
import made_up
import pytest
import refusals
import synthetic
from jouleline.campaign import config
from jouleline.commands import main as cli
from jouleline.files import write_json
from jouleline.hardware.tables import SUPPORT
from jouleline.model.table.runs import write_runs
from jouleline.schemas import write_table
from jouleline.schemas.energy import REGIONS
from paths import ROOT

TABLES = "--runs <c/tables/runs.parquet --regions <c/tables/regions.parquet"
# The words of a program with the files that it reads (<) and writes (>); those that it finds in a folder by itself
# stand after the bar. A new command or script joins by its line.
PROGRAMS = {
    # commands
    "import": "<foreign.csv --mapping <mapping.json --out >imported.csv",
    "fit": "<runs.parquet --models constant --splits H0 --bootstrap 0 --starts 1 --calibration <c/calibration.json "
    "--out fitted | >fitted/validation.json",
    "predict": "<rows.csv --model <all.json --out >predicted.csv",
    "choose": "--model <all.json --ask <ask.yaml --out >answers.json",
    "next": "<runs.parquet --candidates <rows.csv --calibration <c/calibration.json -n 1 --out >next.csv",
    "energy": "m | <m/meta.json <m/samples.parquet",
    "model": "<config.json",
    "status": "c --results . | <c/grid.json",
    "doctor": "--show kept | <kept/host.json",
    # scripts
    "ask_accounting": "--grid <c/grid.json --runs-dir c/runs --out >accounting.json",
    "bundle_wheels": "--there <there.txt --lock <base.lock --out bundle",
    "calibrate_node": "--protocol '{}' --out >device.json",
    "check_hardware": "--report-only --out hw | <hw/support.parquet",
    "check_runs": TABLES + " --protocol '{}' --out >checks.parquet",
    "choose_configuration": """--model all.json --runs <runs.parquet --asks '{"asks": []}' --out >answers.json""",
    "choose_rows": "--grid <c/grid.json --earlier <round-1.json --energy <energy.parquet --calibration "
    "<c/calibration.json --settings FRUGAL --out >round-2.json",
    "collect_calibration": "--node <c/calibration.json --out >calibration.json --table >calibration.parquet",
    "collect_runs": "--grid <c/grid.json --runs-dir c/runs --energy <energy.parquet --slurm slurm.json "
    "--runs >t/r.parquet --regions >t/e.parquet --timings >t/t.parquet --dictionary >t/d.md",
    "draw_rooms": "--out >rooms.svg",
    "enforce_gates": "--validation <c/validation.json",
    "examine_node": f"--out examined | >examined/{socket.gethostname()}.json",
    "fit_model": "--runs <runs.parquet --split <H0.json --model constant --calibration <c/calibration.json "
    "--out >fit.json",
    "import_data": "--data kept-data --campaign fabricated --out >laid/tables/runs.parquet | "
    "<kept-data/provenance.json <kept-data/tables/runs.parquet",
    "integrate_energy": "--runs c/runs/RUN/run.json --out >regions.parquet",
    "make_public": "--data public --out made --tables ecai2025 | <public/ecai2025_transformer.csv",
    "measure_run": "--run-id r --row ROW --protocol '{}' --code-digest x --dataset <runs.parquet --out-dir measured",
    "measure_idle": "--protocol '{}' --out >idle.json",
    "measure_reference": "--campaign tiny --minutes 0 --to packed | <config/campaigns/tiny.yaml "
    ">packed/tiny-state.json",
    "pack_data": "--results c --out packed | <c/tables/runs.parquet",
    "plan_campaign": "--grid <c/grid.json --protocol '{}' --code-digest x --plan PLAN --headline power_law "
    "--out >plan.csv",
    "predict_holdout": "--runs <runs.parquet --split <H0.json --fit <fitted.json --calibration <c/calibration.json "
    "--out >predictions.parquet",
    "predict_rows": "--model <all.json --rows <rows.csv --out >rows.parquet",
    "prepare_dataset": "--dataset images --vocab-size 512 --out >texts.parquet --tokenizer >texts.json",
    "render_report": "--campaign c "
    + TABLES
    + " --timings <c/tables/timings.parquet --checks <c/tables/checks.parquet "
    "--validation <c/validation.json --calibration <c/calibration.json --idle <c/idle.json "
    "--fits <c/fit/roofline/H0.json --predictions <c/predictions/roofline/H0.parquet --splits <H0.json "
    "--config <c/grid.json --runs-dir c/runs --out >report.html",
    "score_campaign": "--results c --out >scores.md | <c/tables/runs.parquet <c/validation.json",
    "score_frugal": "--data public --out scores.md | <public/ecai2025_transformer.csv",
    "score_public_tables": "--data public --out scores.md | <public/ecai2025_transformer.csv",
    "show_headline": "--campaign c --results . | <c/tables/runs.parquet <c/validation.json",
    "split_runs": "--runs <runs.parquet --checks <c/tables/checks.parquet --labels <labels.json --split H0 "
    "--out >split.json",
    "suggest_runs": "--runs <runs.parquet --split <split-all.json --grid <c/grid.json --calibration "
    "<c/calibration.json --out >next.json",
    "validate_holdout": "--runs <runs.parquet --predictions <predicted.parquet --fits <fitted.json "
    "--out >validation.json",
}
# What reads and writes no file before it has measured for seconds: how it ends is tested where it is started.
ELSEWHERE = {
    "calibrate_links": "tests/scripts/test_calibrate_links.py",
    "draw_readme": "it draws pages of this checkout in a browser",
    "measure": "tests/unit/measure/sidecar/test_wrap.py",
}
# What takes a second each time is spared most of the faults.
LONG = ("fit", "fit_model", "next")
CAUSES = {
    "missing": "has no file|keeps no|missing|no such file|there is no|is not|does not exist",
    "a folder": r"is a directory|folder|missing file \S+/config.json",
    "a link to itself": "symbolic links",
    "a name too long": "name too long",
    "a file for a folder": "not a directory|is a file",
    "a socket": "no such device",
    "a failing disk": "input/output error",
    "no such place": "no such file|cannot",
    "not permitted": "permission denied|cannot be written",
    "no room": "file too large",
    "disk full": "no space left",
    "quota full": "quota",
    "stale": "stale",
    "read-only": "read-only",
    "many files": "too many open files",
    "many files of all": "too many open files in system",
    "not now": "temporarily unavailable",
    "interrupted": "interrupted",
    "kernel memory": "cannot allocate memory",
    "memory": "cannot allocate memory",
    "unmounted": "not connected",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with everything that a program reads."""
    folder = tmp_path_factory.mktemp("world")
    fabricated_campaign.write(folder / "c")
    runs = synthetic.table(12)
    for name in ("runs.parquet", "foreign.csv"):
        write_runs(runs, folder / name)
    write_json(folder / "mapping.json", {"columns": {name: name for name in FOREIGN}})
    made_up.measurement(folder / "m")
    (folder / "rows.csv").write_text(f"{','.join(SHAPE)}\n6,512,8,2048,128,32\n6,512,8,2048,128,16\n")
    shape = dict(zip(SHAPE, (6, 512, 8, 2048, 128)))
    (folder / "ask.yaml").write_text(
        json.dumps(shape | {"steps": 10, "global_batch": 32, "device": runs["device"][0]})
    )
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "labels.json", {"a": {"split": "train"}})
    write_json(folder / "c/grid.json", {"schema": 1, "campaign": "c", "runs": []})
    write_json(folder / "kept/host.json", {"facts": {"host": "host"}, "findings": []})
    write_table(SUPPORT, [], folder / "hw/support.parquet")
    (folder / "c/tables/data_dictionary.md").touch()
    write_table(REGIONS, [], folder / "energy.parquet")
    (folder / "Snakefile").touch()
    (folder / "config/campaigns").mkdir(parents=True)
    (folder / "config/campaigns/tiny.yaml").write_text(f"grid: {{rows: [{json.dumps(shape)}]}}\n")
    (folder / "there.txt").write_text("torch\n")
    (folder / "base.lock").write_text("")
    write_json(folder / "round-1.json", {"schema": 1, "round": 1, "stopped": None, "runs": []})
    (folder / "kept-data/tables").mkdir(parents=True)
    digest = hashlib.sha256((folder / "runs.parquet").read_bytes()).hexdigest()
    shutil.copy(folder / "runs.parquet", folder / "kept-data/tables")
    write_json(
        folder / "kept-data/provenance.json",
        {"campaign": "fabricated", "sha256": {"tables/runs.parquet": digest}},
    )
    (folder / "public").mkdir()
    (folder / "public/ecai2025_transformer.csv").write_text("a,b\n1,2\n")
    for program, words in MADE:
        assert start(program, words, folder) == 0
    return folder


# Files of the world that programs make.
MADE = (
    ("split_runs", "--runs runs.parquet --split H0 --out H0.json"),
    ("split_runs", "--runs runs.parquet --split all --out split-all.json"),
    ("fit_model", "--runs runs.parquet --split H0.json --model constant --out fitted.json"),
    ("fit_model", "--runs runs.parquet --split split-all.json --model constant --out all.json"),
    ("predict_holdout", "--runs runs.parquet --split H0.json --fit fitted.json --out predicted.parquet"),
)
PLAN = config.load({"campaign": "demo"}, ROOT).settings["plan"]
FRUGAL = {"frugal": {"first": 1, "batch": 1, "until": {"rounds": 2}}, "plan": PLAN, "protocol": {}}
SHAPE = ("layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch")
FOREIGN = (
    *SHAPE,
    "device",
    "device_count",
    "tensor_parallel",
    "zero_stage",
    "steps",
    "time_s",
    "energy_j",
    "precision",
)
CONFIG = {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2}
CONFIG |= {"intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 64}


# Words of PROGRAMS that stand for JSON.
SETTINGS = {"PLAN": PLAN, "FRUGAL": FRUGAL, "ROW": dict(zip(SHAPE, (2, 64, 2, 128, 32, 4)))}


def start(program: str, words: str, folder: Path) -> int:
    """The exit code of a program in this process, started in `folder`."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        if program in cli.COMMANDS:
            return cli.main([program, *shlex.split(words)])
        return script(program).main(shlex.split(words))
    except SystemExit as way_out:
        return way_out.code
    finally:
        os.chdir(before)


def ended(program: str, words: str, folder: Path, capsys) -> tuple[int, str]:
    """(its exit code, what it said as an error) of a program; -1 and the exception where one came through."""
    capsys.readouterr()
    try:
        return start(program, words, folder), capsys.readouterr().err
    except Exception as error:
        return -1, f"Traceback: {error!r}"


@functools.cache
def script(name: str):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files(words: str, sign: str) -> list[str]:
    return [word[1:] for word in shlex.split(words) if word.startswith(sign)]


def plain(words: str) -> str:
    """The words without their signs and without what stands after the bar."""
    for name, value in SETTINGS.items():
        words = words.replace(name, shlex.quote(json.dumps(value)))
    return shlex.join(word.lstrip("<>") for word in shlex.split(words.split(" | ")[0]))


def test_every_program_is_here():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert set(PROGRAMS) | set(ELSEWHERE) == set(cli.COMMANDS) | scripts
    assert not set(PROGRAMS) & set(ELSEWHERE)


def told(code: int, said: str, names: list[str], fault: str) -> str:
    """What is wrong with how a program ended; empty where nothing is."""
    line = (said.strip().splitlines() or [""])[-1]
    if "Traceback" in said:
        return f"a traceback: {line}"
    if code != 2 or not line.startswith("error: "):
        return f"exit code {code}: {said}"
    if not any(name in line for name in names) or not re.search(CAUSES.get(fault, ""), line, re.I):
        return f"says {line}"
    return "" if ";" in line else f"no remedy: {line}"


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    """What takes seconds, and is not about files."""
    monkeypatch.setattr("jouleline.measure.node.orphan.stop_with_snakemake", lambda: None)
    monkeypatch.setattr("jouleline.measure.calibrate.idle.watch_idle", lambda *_: {})
    monkeypatch.setattr("jouleline.energy.node_power.idle_devices", lambda *_: [])
    monkeypatch.setattr(script("calibrate_node"), "measure", lambda *_: {})
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("jouleline.reference.bundle.missing", lambda *_: [])
    monkeypatch.setattr("jouleline.report.page.build", lambda *_: None)
    monkeypatch.setattr("jouleline.report.page.markup", lambda *_: "<html/>")
    monkeypatch.setattr(script("draw_rooms"), "read", lambda: ())
    monkeypatch.setattr(script("draw_rooms"), "svg", lambda: "<svg/>")
    monkeypatch.setattr("jouleline.measure.train.corpus._images", lambda *_: ({"image": [b"x"]}, {}, None))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_file_that_is_read(world, program, capsys):
    words, wrong = PROGRAMS[program], []
    for name, (fault, lay) in itertools.product(files(words, "<"), refusals.INPUTS.items()):
        path = world / name
        with lay(path):
            code, said = ended(program, plain(words), world, capsys)
        problem = told(code, said, [path.name, path.parent.name], fault)
        if problem and not may_be_read(path, fault, code):
            wrong.append(f"{name}, {fault}: {problem}")
    assert not wrong, "\n".join(wrong)


def may_be_read(path: Path, fault: str, code: int) -> bool:
    """Half of a text may be whole, and an empty one too."""
    if (
        path.suffix == ".parquet" and fault == "a failing disk"
    ):  # to Arrow, which asks for its size, it is empty
        return code == 2 or path.name == "samples.parquet"
    if path.name == "samples.parquet":  # a sidecar that was killed: an invalid region, with its reason
        return code == 1 and fault != "not permitted"
    return fault in ("torn", "empty") and path.suffix in (".csv", ".yaml", ".txt", ".lock") and code in (0, 2)


# What is at an output's place; a program may read there what it wrote before.
THEIRS = '{"runs": [], "of": "the user"}'


@pytest.mark.parametrize("program", [name for name, words in PROGRAMS.items() if files(words, ">")])
def test_a_file_that_is_written(world, program, capsys):
    words, wrong = PROGRAMS[program], []
    for name, (fault, lay) in itertools.product(files(words, ">"), refusals.OUTPUTS.items()):
        if program in LONG and fault not in ("a folder", "no room"):
            continue
        path = world / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text(THEIRS)
        with lay(path):
            code, said = ended(program, plain(words), world, capsys)
        # Of several that cannot be written, the first is told; where no file can be opened, that of any kind.
        ours = [Path(one) for one in files(words, ">")]
        names = [one for path in ours for one in (path.name, path.parent.name or path.name)]
        names = [""] if fault == "many files" else names
        problem = told(code, said, names, fault)
        if problem:
            wrong.append(f"{name}, {fault}: {problem}")
        if path.suffix and path.read_text() != THEIRS:
            wrong.append(f"{name}, {fault}: what was there is lost")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("program", [name for name, words in PROGRAMS.items() if files(words, ">")])
@pytest.mark.parametrize("fault", refusals.PATHS)
def test_a_path_that_cannot_be_written(world, program, fault, capsys):
    words, wrong = PROGRAMS[program], []
    if program in LONG and fault != "a name too long":
        return
    (world / "file").touch()
    for name in files(words.split(" | ")[0], ">"):
        path = refusals.PATHS[fault](Path(name))
        code, said = ended(program, plain(words.replace(f">{name}", str(path))), world, capsys)
        problem = told(code, said, [path.name, path.parent.name, "/proc/none"], fault)
        if problem:
            wrong.append(f"{name}: {problem}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("program", ["validate_holdout", "split_runs", "predict_rows"])
def test_the_longest_name_that_a_file_may_have_is_written(world, program, capsys):
    (name,) = files(PROGRAMS[program], ">")
    path = Path(name).with_stem(refusals.LONGEST)
    assert len(path.name) <= 255
    assert ended(program, plain(PROGRAMS[program].replace(f">{name}", str(path))), world, capsys)[0] in (0, 1)
    assert (world / path).exists()
