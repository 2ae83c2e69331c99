"""Every script that takes JSON on its command line says what is wrong with it in one line."""

import re
from pathlib import Path

import pytest
from paths import ROOT
from programs import script

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
_TAKEN = re.compile(r"json_object\(\w+\.\w+, \"(--[\w-]+)\"\)")
TABLE = [(path, option) for path in SCRIPTS for option in _TAKEN.findall(path.read_text())]


def test_json_options_are_read_in_one_way():
    assert {path.stem for path, _ in TABLE} >= {"fit_model", "split_runs", "predict_rows", "validate_holdout"}
    for path in SCRIPTS:
        assert "json.loads" not in path.read_text(), (
            f"{path.name}: take the option with commands.options.json_object"
        )


@pytest.mark.parametrize("given", ["{torn", "[1]"])
@pytest.mark.parametrize(
    ("path", "option"), TABLE, ids=lambda value: value.stem if isinstance(value, Path) else value
)
def test_bad_json_is_one_line(path, option, given, tmp_path):
    done = script(path.stem, *_words(path, option, given, tmp_path))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {option} ") and done.stderr.count("\n") == 1, done.stderr
    assert not any(tmp_path.iterdir())


def _words(path, option, given, folder) -> list[str]:
    """Every option that the script needs, with a file that is not there or an empty object, and the bad one."""
    words = []
    for line in re.sub(r"\s+", " ", path.read_text()).split("add_argument(")[1:]:
        name = re.match(r"\s*\"(--[\w-]+)\"", line)
        if name and "required=True" in line.split("add_argument")[0].split("parser.")[0]:
            objects = {one for other, one in TABLE if other == path}
            plain = "1" if "type=int" in line else str(folder / "none")
            words += [name[1], "{}" if name[1] in objects else plain]
    if path.stem == "render_report":  # its options come from two loops
        named = ("runs", "regions", "timings", "checks", "validation", "calibration", "idle")
        words += [word for name in named for word in (f"--{name}", str(folder / "none"))]
    return [*words, option, given]
