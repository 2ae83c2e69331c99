"""The bundle of wheels: what is missing there, from the lock with its hashes, and nothing compiled here."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from jouleline.errors import UserError
from jouleline.reference import bundle
from paths import ROOT

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tinypart"
version = "1.2"
"""
COMPILED = """
from setuptools import Extension, setup
setup(ext_modules=[Extension("tinypart_c", ["part.c"])], py_modules=["tinypart"])
"""


def sdist(folder: Path, files: dict[str, str]) -> str:
    """A source distribution in `folder`; its entry in a lock."""
    path = folder / "tinypart-1.2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {
            "PKG-INFO": "Metadata-Version: 2.1\nName: tinypart\nVersion: 1.2\n",
            **files,
        }.items():
            entry = tarfile.TarInfo(f"tinypart-1.2/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return f"tinypart==1.2 \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip without a network, with a folder of packages; of NO_BUILD_ISOLATION it takes 0 for yes."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "NO_BUILD_ISOLATION": "0"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def test_a_package_without_a_wheel_is_built_and_installs_by_its_hash(index, tmp_path):
    lock = tmp_path / "base.lock"
    lock.write_text(sdist(index, {"pyproject.toml": PROJECT, "tinypart.py": "VALUE = 7\n"}) + "\nother==3\n")
    out = tmp_path / "bundle"
    out.mkdir()
    wheel = bundle._fetch(out, "tinypart", bundle.read_lock(lock)["tinypart"], "3.12")
    assert wheel.name == "tinypart-1.2-py3-none-any.whl"
    (out / "requirements.txt").write_text(bundle._pin(wheel) + "\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--target",
        str(tmp_path / "site"),
        "--require-hashes",
    ]
    command += ["--find-links", str(out), "-r", str(out / "requirements.txt")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "site/tinypart.py").read_text() == "VALUE = 7\n"


def test_what_would_be_compiled_here_is_refused(index, tmp_path):
    files = {"pyproject.toml": PROJECT, "setup.py": COMPILED, "tinypart.py": "", "part.c": "int one = 1;\n"}
    with pytest.raises(UserError, match="compiled for this machine"):
        bundle._fetch(tmp_path, "tinypart", sdist(index, files), "3.12")


def test_another_file_than_the_locked_one_is_refused(index, tmp_path):
    locked = sdist(index, {"pyproject.toml": PROJECT, "tinypart.py": "VALUE = 7\n"})
    sdist(index, {"pyproject.toml": PROJECT, "tinypart.py": "VALUE = 8\n"})
    with pytest.raises(UserError, match="no wheel of tinypart"):
        bundle._fetch(tmp_path, "tinypart", locked, "3.12")


def test_what_is_there_is_left_out_with_what_only_it_needs():
    everything = bundle.missing(bundle.ROOTS, {}, "3.12")
    there = bundle.read_there(ROOT / "workflow/envs/there.txt")
    lacking = bundle.missing(bundle.ROOTS, there, "3.12")
    assert {"torch", "sympy", "snakemake"} <= set(everything)  # sympy is torch's
    assert {"snakemake", "deepspeed", "jsonschema"} <= set(lacking)
    assert not {"torch", "sympy", "numpy", "pytest"} & set(lacking)
    locked = bundle.read_lock(ROOT / "workflow/envs/base.lock")
    assert set(lacking) <= set(locked)
    assert all("--hash=sha256:" in locked[name] for name in lacking)


def test_a_version_that_does_not_fit_is_told():
    assert bundle.disagreements(["jinja2"], {"markupsafe": "1.0"}, "3.12") == [
        "jinja2 needs MarkupSafe>=2.0; 1.0 is there"
    ]
    assert bundle.disagreements(["jinja2"], {"markupsafe": "3.0"}, "3.12") == []
    assert bundle.disagreements(["jinja2"], {"markupsafe": None}, "3.12") == []


def test_a_list_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="missing file .*none.txt"):
        bundle.read_there(tmp_path / "none.txt")
