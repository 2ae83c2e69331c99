"""Nothing depends on the locale: texts are UTF-8 wherever one is read or written, and a print never fails."""

import ast
import os
import subprocess
import sys

import fabricated_campaign
from paths import ROOT

PARTS = ("workflow/jouleline", "workflow/envs", "scripts")
# Neither UTF-8 by the locale nor by Python's own guess.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
BINARY = ("tarfile.open", "os.open", "tokenize.open", "Image.open")


def by_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes a text in the encoding of the locale."""
    name, keys = ast.unparse(call.func), {word.arg for word in call.keywords}
    method = name.rsplit(".", 1)[-1]
    if "encoding" in keys or name in BINARY:
        return False
    if method in ("open", "fdopen"):
        mode = [str(a.value) for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return not any("b" in one for one in mode)
    if "text" in keys or "universal_newlines" in keys:
        return True
    # The functions of that name in files.py are called without an object.
    return method in ("read_text", "write_text") and "." in name and not name.startswith("files.")


def test_every_text_names_its_encoding():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for part in PARTS
        for path in sorted((ROOT / part).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and by_the_locale(node)
    ]
    assert not found


def test_the_headline_of_a_campaign_is_printed_whatever_the_locale(tmp_path):
    fabricated_campaign.write(tmp_path)
    command = [sys.executable, ROOT / "scripts/show_headline.py", "--campaign", tmp_path.name]
    command += ["--results", tmp_path.parent]
    done = subprocess.run(command, env=os.environ | ASCII, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"paper law, ? measured (post-run)" in done.stdout and b"report.html" in done.stdout
