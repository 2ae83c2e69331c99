"""The command line as a whole: what a user can do wrong with a file is one line and 2, whatever the command."""

import os
import subprocess
import sys

import pytest
from jouleline.commands import main as cli
from paths import ROOT

# The words of a command, with FOLDER where a file should be.
WORDS = {
    "import: the table": ["import", "FOLDER", "--mapping", "ecai2025", "--out", "out.parquet"],
    "import: the mapping": ["import", "t.csv", "--mapping", "FOLDER", "--out", "out.parquet"],
    "fit: the runs": ["fit", "FOLDER", "--out", "out"],
    "predict: the rows": ["predict", "FOLDER", "--model", "m.json", "--out", "out.csv"],
    "predict: the model": ["predict", "t.csv", "--model", "FOLDER", "--out", "out.csv"],
    "next: the runs": ["next", "FOLDER", "--candidates", "t.csv"],
    "next: the candidates": ["next", "t.csv", "--candidates", "FOLDER"],
    "choose: the ask": ["choose", "--ask", "FOLDER"],
    "energy: a folder without a measurement": ["energy", "FOLDER"],
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_a_folder_where_a_file_should_be(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "m.json").write_text('{"columns": {"time_s": "a"}}')
    try:
        code = cli.main(words)
    except SystemExit as ended:  # argparse
        code = ended.code
    said = capsys.readouterr().err.strip().splitlines()
    assert (code == 2 and said and "FOLDER" in said[-1]) or "folder" in said[-1], said
    assert not list((tmp_path / "FOLDER").iterdir())


def test_ctrl_c_is_one_line(monkeypatch, capsys, tmp_path):
    from jouleline.commands import fit

    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "main", interrupted)
    assert cli.main(["fit", "runs.parquet"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize("text", ["", "raise ImportError('of another Python', path=__file__)\n"])
def test_a_foreign_module_on_the_path_is_named(tmp_path, text):
    """As a site's modules put them there: a numpy that is none, or of another Python."""
    foreign = tmp_path / "site/numpy/__init__.py"
    foreign.parent.mkdir(parents=True)
    foreign.write_text(text)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "workflow")])
    command = [sys.executable, "-m", "jouleline.commands.main", "fit", "runs.parquet", "--out", "out"]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {foreign} stands before"), done.stderr
    assert done.stderr.count("\n") == 1 and "PYTHONPATH" in done.stderr


def test_every_command_is_in_the_usage(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)
    assert cli.main(["nothing"]) == 2


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "1e12"])
def test_a_wait_that_is_none_is_refused(seconds, capsys):
    assert cli.main(["status", "--follow", f"--every-s={seconds}"]) == 2
    assert "give seconds above 0" in capsys.readouterr().err
