"""Users without a name or a home: what is set, and what is left alone."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from jouleline import home
from paths import ROOT


@pytest.fixture
def nameless(monkeypatch, tmp_path):
    """A uid without an entry in any list of users, with a folder for temporary files."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", *home.CACHES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"jouleline-{os.getuid()}"


def test_a_uid_without_an_entry_gets_a_name_and_a_home(nameless):
    home.settle()
    assert os.environ["USER"] == f"uid{os.getuid()}" and os.environ["HOME"] == str(nameless)
    assert os.environ["XDG_CACHE_HOME"].startswith(str(nameless)) and nameless.stat().st_mode & 0o777 == 0o700


# Homes that root cannot write either.
@pytest.mark.parametrize("where", ["/proc/none", "/dev/null", "FILE"])
def test_a_home_that_cannot_be_written_stays_and_caches_go_elsewhere(nameless, monkeypatch, where):
    (nameless.parent / "FILE").touch()
    where = where.replace("FILE", str(nameless.parent / "FILE"))
    monkeypatch.setenv("HOME", where)
    home.settle()
    assert os.environ["HOME"] == where  # what can be read in it (profiles, keys) is still the user's
    assert all(Path(os.environ[name]).is_relative_to(nameless) for name in home.CACHES)


def test_a_home_that_can_be_written_is_left_alone(nameless, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "somebody")
    before = dict(os.environ)
    home.settle()
    assert dict(os.environ) == before and not nameless.exists()


def test_a_folder_that_another_has_taken_is_not_used(nameless, monkeypatch):
    nameless.touch()
    home.settle()
    assert nameless.is_file() and Path(os.environ["XDG_CACHE_HOME"]).parent == nameless.parent


@pytest.mark.parametrize("target", ["setup", "setup-bundle"])
def test_setup_lets_every_python_of_the_environment_import_it_and_forget_it(tmp_path, target):
    """Else a checkout would work with the library of the one that the environment was made for."""
    (tmp_path / "requirements.txt").touch()
    command = ["make", "-n", target, f"BUNDLE={tmp_path}", f"VENV={tmp_path}/venv", "TORCH=cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = re.findall(r'echo "(import .*)" > .*jouleline_home.pth', done.stdout)
    (tmp_path / "jouleline_home.pth").write_text(line + "\n")
    start = "import os, site, sys; site.addsitedir(sys.argv[1]); "
    start += (
        "print(os.environ['XDG_CACHE_HOME'], [name for name in sys.modules if name.startswith('jouleline')])"
    )
    there = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    there |= {"HOME": "/proc/none", "TMPDIR": str(tmp_path)}
    said = subprocess.check_output([sys.executable, "-c", start, tmp_path], text=True, env=there)
    cache, modules = said.split()
    assert Path(cache) == tmp_path / f"jouleline-{os.getuid()}" and modules == "[]"


def test_it_loads_nothing_else():
    names = (
        "import jouleline.home, sys; print(*(name for name in sys.modules if name.startswith('jouleline')))"
    )
    said = subprocess.check_output([sys.executable, "-c", names], text=True)
    assert said.split() == ["jouleline", "jouleline.home"]


# ---- Settings and programs that others' code takes for granted

PROBE = """import os, sys, warnings
warnings.warn('a word')
print(sys.argv[1:])
print(sys.flags.optimize, sorted(name for name in os.environ if name == sys.argv[1]))
sys.exit()"""


@pytest.mark.parametrize(
    "name, value",
    [
        ("PYTHONHOME", sys.base_prefix),
        ("PYTHONINSPECT", "1"),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONWARNINGS", "error"),
    ],
    ids=home.ASTRAY,
)
def test_a_setting_of_python_for_other_programs_does_not_reach_this_one(name, value):
    environment = {**os.environ, name: value}
    keys = {"env": environment, "text": True, "stdin": subprocess.DEVNULL, "capture_output": True}
    done = subprocess.run([sys.executable, "-c", PROBE, name, "a b", ""], **keys)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str([name, "a b", ""]), "0 []"]


def test_a_machine_without_which_gets_one_and_keeps_its_own(tmp_path, monkeypatch):
    """Snakemake's plugin for Slurm calls it when it is imported, and ends in a traceback."""
    (tmp_path / "sacct").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    home.complete_path()
    assert subprocess.check_output(["which", "sacct"], text=True).strip() == str(tmp_path / "sacct")
    assert subprocess.run(["which", "nothing"], stdout=subprocess.DEVNULL).returncode == 1
    before = os.environ["PATH"]
    home.complete_path()
    assert os.environ["PATH"] == before
