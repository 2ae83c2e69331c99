"""The page of scores of the frugal choice: a table that is replayed anew leaves the others as they stand."""

import importlib.util

import numpy as np
from paths import ROOT

SPEC = importlib.util.spec_from_file_location("score_frugal", ROOT / "scripts/score_frugal.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


def test_tables_that_are_not_replayed_stay(tmp_path):
    page = tmp_path / "scores.md"
    page.write_text("# Scores\n\nothers\n")
    script._replace(page, {"": [script._TITLE, "", "how"], script.ECAI: ["old", "", "| a |"]})
    script._replace(page, {"": [script._TITLE, "", "how"], script.DEMO: ["new"]})
    text = page.read_text()
    assert text.startswith("# Scores\n\nothers\n\n## Frugal choice of rows\n\nhow\n")
    assert "### ECAI 2025\n\nold\n\n| a |\n\n### Demonstration campaign\n\nnew\n" in text
    script._replace(page, {"": [script._TITLE, "", "how"], script.DEMO: ["newer"]})
    assert page.read_text() == text.replace("new\n", "newer\n")


def test_why_a_table_is_not_replayed_is_counted():
    columns = {"bench": ["a", "a", "b"], "gpus": [8, 8, 8], "gbs": [1, 1, 1], "ga": [1, 1, 1]}
    text = " ".join(script._not_replayed({name: np.array(values) for name, values in columns.items()}))
    assert "Its 3 runs cannot be replayed so: they are of 2 configurations" in text
