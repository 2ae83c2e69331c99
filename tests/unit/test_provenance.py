"""The digest of code: what must change it, and what must not."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest
from jouleline import provenance
from jouleline.errors import UserError
from paths import ROOT

from tests.workflow.checkout import change_a_constant


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package named like ours, with a script that imports one of its modules."""
    root = tmp_path / "jouleline"
    files = {
        "__init__.py": "",
        "measure/__init__.py": "",
        "measure/clock.py": 'def now():\n    """Seconds."""\n    return 1\n',
        "measure/unused.py": "x = 1\n",
        "reader.py": "def read():\n    from .measure import clock\n    return clock.now()\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "script.py").write_text("from jouleline.reader import read\nprint(read())\n")
    monkeypatch.setattr(provenance, "_PACKAGE_ROOT", root)
    return tmp_path


def digest(package, **options):
    for cached in (provenance._text, provenance._remembered, provenance._module_file):
        cached.cache_clear()
    return provenance.code_digest([package / "script.py"], **options)


def edit(package: Path, name: str, old: str, new: str) -> None:
    path = package / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("script.py", "print(read())", "print(read() + 1)"),
        ("jouleline/measure/clock.py", "return 1", "return 2"),
        ("jouleline/reader.py", "return clock.now()", "return -clock.now()"),
        ("jouleline/measure/__init__.py", "", "y = 2\n"),
    ],
)
def test_a_change_of_meaning_anywhere_in_the_closure_changes_it(package, name, old, new):
    before = digest(package)
    edit(package, name, old, new)
    assert digest(package) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("jouleline/measure/clock.py", '"""Seconds."""', '"""Seconds since the start."""'),
        ("jouleline/measure/clock.py", "    return 1\n", "    return 1  # always\n\n"),
        ("script.py", "print(read())", "print(\n    read()\n)"),
        ("jouleline/measure/unused.py", "x = 1", "x = 2"),
    ],
)
def test_docstrings_comments_layout_and_unused_modules_do_not(package, name, old, new):
    before = digest(package)
    edit(package, name, old, new)
    assert digest(package) == before


def test_within_counts_only_that_part_but_follows_imports_through_the_rest(package):
    before = digest(package, within="jouleline.measure")
    edit(package, "jouleline/reader.py", "return clock.now()", "return -clock.now()")
    assert digest(package, within="jouleline.measure") == before
    edit(package, "jouleline/measure/clock.py", "return 1", "return 2")
    assert digest(package, within="jouleline.measure") != before


def move(package: Path, old: str, new: str, edits: dict[str, list[tuple[str, str]]]) -> None:
    """Move a module, and correct the imports of the others."""
    target = package / "jouleline" / new
    target.parent.mkdir(parents=True, exist_ok=True)
    (target.parent / "__init__.py").touch()
    (package / "jouleline" / old).rename(target)
    for name, changes in edits.items():
        for change in changes:
            edit(package, name, *change)


@pytest.mark.parametrize("within", ["jouleline", "jouleline.measure"])
def test_moves_and_new_names_of_modules_do_not(package, within):
    before = digest(package, within=within)
    to_hour = (
        "from .measure import clock\n    return clock.now",
        "from .measure.raw import hour\n    return hour.now",
    )
    move(package, "measure/clock.py", "measure/raw/hour.py", {"jouleline/reader.py": [to_hour]})
    assert digest(package, within=within) == before
    inner = ("from .measure.raw", "from jouleline.measure.raw")
    move(package, "reader.py", "room/told.py", {"jouleline/room/told.py": [inner]})
    edit(package, "script.py", "jouleline.reader", "jouleline.room.told")
    assert digest(package, within=within) == before
    edit(package, "jouleline/measure/raw/hour.py", "return 1", "return 2")
    assert digest(package, within=within) != before


def test_the_order_of_imports_does_not_and_what_is_imported_does(package):
    reader = package / "jouleline" / "reader.py"
    reader.write_text(
        "from .measure import clock\nfrom .measure import unused\nread = clock.now\ns = unused.x\n"
    )
    before = digest(package)
    reader.write_text(
        "from .measure import unused\nfrom .measure import clock\nread = clock.now\ns = unused.x\n"
    )
    assert digest(package) == before
    reader.write_text(
        "from .measure import unused\nfrom .measure import clock\nread = unused.x\ns = clock.now\n"
    )
    assert digest(package) != before


def test_a_name_that_the_file_binds_itself_is_not_taken_for_the_import(package):
    reader = package / "jouleline" / "reader.py"
    reader.write_text("from .measure import clock as a\ndef read(b=1):\n    return a.now(), b\n")
    before = digest(package)
    reader.write_text("from .measure import clock as b\ndef read(b=1):\n    return b.now(), b\n")
    assert digest(package) != before


def test_a_package_that_passes_a_name_on_is_passed_through(package):
    reader, init = package / "jouleline" / "reader.py", package / "jouleline" / "measure" / "__init__.py"
    reader.write_text("from .measure.clock import now as read\n")
    before = digest(package)
    init.write_text('"""A room."""\n\nfrom jouleline.measure.clock import now\n\n__all__ = ["now"]\n')
    reader.write_text("from .measure import now as read\n")
    assert digest(package) == before
    edit(package, "jouleline/measure/clock.py", "return 1", "return 2")
    assert digest(package) != before


def test_a_circle_is_named(package):
    edit(package, "jouleline/measure/clock.py", "return 1", "from jouleline.reader import read")
    with pytest.raises(
        UserError, match=r"circle: jouleline\.reader -> jouleline\.measure\.clock -> jouleline"
    ):
        digest(package)


def test_what_is_remembered_of_a_text_gives_the_same_digest(package, monkeypatch):
    before = digest(package)
    monkeypatch.setattr(provenance.ast, "parse", None)  # the second time nothing is parsed
    assert digest(package) == before


@pytest.mark.parametrize("text", ["", "{", "[1"])
def test_a_torn_memory_is_worked_out_again(package, text):
    before = digest(package)
    provenance._memory().write_text(text)
    assert digest(package) == before
    assert digest(package) == before and provenance._memory().read_text() != text


def test_a_checkout_that_cannot_be_written_has_its_digest_too(package):
    before = digest(package)
    provenance._memory().unlink()
    provenance._memory().parent.rmdir()
    provenance._memory().parent.write_text("a file where the folder should be")
    assert digest(package) == before


def test_a_long_list_becomes_one_short_parameter():
    assert provenance.digest_of(["a", "b"]) != provenance.digest_of(["ab"])
    assert len(provenance.digest_of(str(i) for i in range(10_000))) == 16


def test_it_is_the_same_in_every_python():
    text = "class A:\n    def f(self, x=None):\n        return [x for x in ()]\n"
    ours, theirs = ast.parse(text), ast.parse(text)
    for node in ast.walk(theirs):  # as Python 3.12 has it
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node._fields = (*(name for name in node._fields if name != "type_params"), "type_params")
            node.type_params = []
    assert ast.dump(ours) != ast.dump(theirs) or sys.version_info >= (3, 12)
    assert provenance._meaning(ours) == provenance._meaning(theirs)


# ---- The library itself


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library and of the scripts that rules run."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "workflow/jouleline", tmp_path / "jouleline", ignore=ignore)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=ignore)
    # What texts say is known by their content: it need not be worked out for every copy.
    (tmp_path / "jouleline/__pycache__").mkdir()
    for path in (ROOT / "workflow/jouleline/__pycache__").glob("code-meanings*.json"):
        shutil.copy(path, tmp_path / "jouleline/__pycache__")
    monkeypatch.setattr(provenance, "_PACKAGE_ROOT", tmp_path / "jouleline")
    return tmp_path


def digests(library: Path) -> dict[str, str]:
    """Of every script, and of the measuring code of those that measure."""
    for cached in (provenance._text, provenance._remembered, provenance._module_file):
        cached.cache_clear()
    scripts = sorted((library / "scripts").glob("*.py"))
    found = {path.stem: provenance.code_digest([path]) for path in scripts}
    measuring = [library / f"scripts/{name}.py" for name in ("measure_run", "prepare_dataset")]
    return found | {"measuring": provenance.code_digest(measuring, within="jouleline.measure")}


MOVES = [
    ("measure/sidecar/lanes.py", "measure/raw/swimming.py"),
    ("measure/raw/samples.py", "measure/raw/rows_of_power.py"),
    ("measure/train/trainer.py", "measure/node/trainer.py"),
    ("files.py", "slurm/files_of_all.py"),
]


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_a_module_of_the_library_that_moves_reruns_nothing(library, old, new):
    before = digests(library)
    names = [f"jouleline.{path.removesuffix('.py').replace('/', '.')}" for path in (old, new)]
    (library / "jouleline" / old).rename(library / "jouleline" / new)
    package, name = names[0].rsplit(".", 1)
    target, new_name = names[1].rsplit(".", 1)
    for path in [*library.rglob("*.py")]:
        text = path.read_text()
        text = text.replace(f"from {names[0]} import", f"from {names[1]} import")
        # `from package import name, others` becomes two lines; `as` keeps the name that is used.
        pattern = rf"^( *)from {re.escape(package)} import (.*\b)?{name}\b(.*)$"
        for indent, left, right in re.findall(pattern, text, re.M):
            others = [word.strip() for word in f"{left}{right}".split(",") if word.strip()]
            alias = [word for word in others if word.startswith("as ")]
            others = [word for word in others if not word.startswith("as ")]
            lines = [f"{indent}from {target} import {new_name} {alias[0] if alias else f'as {name}'}"]
            lines += [f"{indent}from {package} import {', '.join(others)}"] if others else []
            text = re.sub(pattern, "\n".join(lines), text, count=1, flags=re.M)
        path.write_text(text)
    assert digests(library) == before


# All that a run is measured with. Only of these does every run know: what calibrates is not among them.
MEASURING = [
    path.relative_to(ROOT / "workflow/jouleline")
    for room in ("raw", "meters", "sidecar", "node", "train")
    for path in sorted((ROOT / "workflow/jouleline/measure" / room).glob("*.py"))
    if path.name != "__init__.py"
]
# The prompt's own command.
NOT_IN_A_RUN = {"measure/sidecar/wrap.py"}


def test_whatever_changes_in_measuring_code_measures_again(library):
    """One constant of each module in turn."""
    before = digests(library)["measuring"]
    blind = []
    for name in MEASURING:
        path = library / "jouleline" / name
        text = path.read_text()
        change_a_constant(path)
        scripts = [library / f"scripts/{name}.py" for name in ("measure_run", "prepare_dataset")]
        for cached in (provenance._text, provenance._module_file):
            cached.cache_clear()
        if provenance.code_digest(scripts, within="jouleline.measure") == before:
            blind.append(str(name))
        path.write_text(text)
    assert set(blind) == NOT_IN_A_RUN
