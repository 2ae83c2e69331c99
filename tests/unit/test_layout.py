"""The layout of the code: which room may import which, how long a file may be, what a Snakefile may load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from programs import script

LIBRARY = ROOT / "workflow" / "jouleline"
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
MODULES = sorted(LIBRARY.rglob("*.py"))

# Scripts that no rule runs: the end of `make run`, scores for docs/, and the tools of the reference campaign.
TOOLS = {
    *{"show_headline", "score_public_tables", "score_campaign", "score_frugal", "draw_readme", "draw_rooms"},
    *{"bundle_wheels", "check_hardware", "measure_reference", "pack_data", "import_data"},
    "make_public",
}

# A room may import the rooms before it, itself, and nothing else. Rooms on one line must not import each other.
LAYERS = (
    ("errors", "home", "patches", "units"),
    ("delimited", "files"),
    ("provenance", "schemas", "slurm"),
    ("campaign",),
    ("architecture",),
    ("measure.raw",),
    ("measure.meters",),
    ("measure.sidecar",),
    ("measure.node",),
    ("measure.train", "measure.calibrate"),
    ("measure",),
    ("model.table",),
    ("model.machine",),
    ("model.features",),
    ("model.base",),
    ("model.roofline",),
    ("model.laws",),
    ("model.fit",),
    ("model.frugal",),
    ("model.judge",),
    ("energy",),
    ("reduce",),
    ("plan", "choose", "status"),
    ("rounds",),
    ("report",),
    ("hardware", "reference", "doctor", "public"),
    ("commands",),
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
# What a room must not import although it comes before it. Of measure, energy may import only the raw files.
FORBIDDEN = {
    "energy": [room for room in RANK if room.startswith("measure.") and room != "measure.raw"],
    "model": ["measure"],
    "campaign": ["slurm"],
    "measure": ["slurm"],
}


def room(name: str) -> str:
    """The room of a module by its name without the package: the longest that RANK knows."""
    parts = name.split(".")
    return next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in RANK), parts[0])


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_imports_point_one_way(path):
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    mine = room(".".join(part for part in parts if part != "__init__"))
    if path in (LIBRARY / "__init__.py", LIBRARY / "model" / "__init__.py"):
        return
    assert mine in RANK, f"{mine} has no place in LAYERS"
    for name in imports(path):
        if not name.startswith("jouleline."):
            continue
        theirs = room(name.removeprefix("jouleline."))
        if theirs in RANK and theirs != mine:
            assert RANK[theirs] < RANK[mine], f"{mine} imports {name}"
            for start, rooms in FORBIDDEN.items():
                if mine.split(".")[0] == start:
                    forbidden = any(theirs == one or theirs.startswith(one + ".") for one in rooms)
                    assert not forbidden, f"{mine} imports {name}"


@pytest.mark.parametrize(
    "path", [p for p in LIBRARY.rglob("__init__.py") if p.parent != LIBRARY], ids=lambda p: p.parent.name
)
def test_a_room_says_what_it_is_for_and_must_not_do(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    if path.parent.name not in ("figures", "sections"):
        assert len(text.splitlines()) >= 3 and ("must not" in text or "No rule" in text or "never" in text), (
            text
        )


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS, *(ROOT / "rules").glob("*.smk")], ids=lambda p: p.name)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 450


def test_the_library_never_imports_scripts_nor_measuring_code_by_name():
    for path in MODULES:
        assert not any(name.startswith("scripts") for name in imports(path)), path
    for path in (LIBRARY / "measure").rglob("*.py"):
        names = imports(path)
        # The digest of the measuring code follows static imports only.
        assert (
            not {"importlib.import_module", "importlib"} & names and "__import__" not in path.read_text()
        ), path


def programs_started(tree: ast.AST) -> list[ast.expr]:
    """The words after `sys.executable` and its options in the commands of a module."""
    found = []
    for node in ast.walk(tree):
        words = node.elts if isinstance(node, ast.List | ast.Tuple) else []
        if words and ast.unparse(words[0]) == "sys.executable":
            options = (
                isinstance(word, ast.Constant) and str(word.value).startswith("-") for word in words[1:]
            )
            found.append(words[1 + list(options).index(False)])
    return found


def names_a_module(text: object) -> bool:
    path = LIBRARY.parent / str(text).replace(".", "/")
    return str(text).startswith("jouleline.") and (path.is_dir() or path.with_suffix(".py").is_file())


STARTING = [path for path in (LIBRARY / "measure").rglob("*.py") if "sys.executable" in path.read_text()]


def test_programs_are_started_from_measuring_code():
    assert {path.name for path in STARTING} >= {"client.py", "node.py"}


@pytest.mark.parametrize("path", STARTING, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_measuring_code_imports_what_it_starts(path):
    """The digest follows imports. A program started by a string could change every number and rerun nothing."""
    tree = ast.parse(path.read_text())
    known = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jouleline.")
        for alias in node.names
    }
    for program in programs_started(tree):
        assert isinstance(program, ast.Attribute) and program.attr in ("__name__", "__file__"), ast.unparse(
            program
        )
        assert ast.unparse(program.value) in known, ast.unparse(program)


@pytest.mark.parametrize(
    "path", (LIBRARY / "measure").rglob("*.py"), ids=lambda p: str(p.relative_to(LIBRARY))
)
def test_measuring_code_names_no_module_by_a_string(path):
    tree = ast.parse(path.read_text())
    # The name of a program in argparse's help starts nothing.
    helps = {
        id(word.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "prog"
    }
    named = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and id(node) not in helps and names_a_module(node.value)
    ]
    assert named == []


def test_every_rule_has_its_script_and_every_script_its_rule():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for path in SCRIPTS:
        if path.stem not in TOOLS:
            named = re.search(rf"^(rule|checkpoint) {path.stem}:", rules, re.M)
            assert named and f"scripts/{path.name}" in rules, path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_script_explains_itself_and_refuses_what_is_missing(path):
    help_text = script(path.stem, "--help")
    assert help_text.returncode == 0 and "usage:" in help_text.stdout
    if path.stem == "show_headline":  # everything it needs has a default
        return
    nothing = script(path.stem)
    assert nothing.returncode == 2 and "Traceback" not in nothing.stderr


def test_parsing_the_snakefile_loads_nothing_heavy():
    code = (
        "import sys; sys.path.insert(0, 'workflow')\n"
        "from pathlib import Path\n"
        "from jouleline.campaign import config\n"
        "from jouleline import provenance\n"
        "from jouleline.slurm import patch\n"
        "config.load({'campaign': 'demo'}, Path('.')).runs\n"
        "heavy = {'torch', 'transformers', 'deepspeed', 'scipy', 'pandas', 'numpy', 'pyarrow', 'pynvml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_picture_of_the_rooms_is_that_of_the_imports(tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "draw_rooms.py", "--out", tmp_path / "rooms.svg"], check=True
    )
    new, old = tmp_path / "rooms.svg", ROOT / "docs" / "rooms.svg"
    assert new.read_text() == old.read_text(), "run python scripts/draw_rooms.py --out docs/rooms.svg"


def test_sections_of_the_report_take_nothing_from_each_other():
    for path in (LIBRARY / "report" / "sections").glob("*.py"):
        taken = [name for name in imports(path) if name.startswith("jouleline.report.sections")]
        assert not taken, (
            f"{path.name} imports {taken}; what sections share belongs to report/scores.py or facts.py"
        )
