"""Public tables: where they are, what is refused, and the way from a file to a page, on a made-up table."""

import json

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.files import digest_file
from jouleline.model.table.mappings import BUILT_IN
from jouleline.public import fetch
from jouleline.public.judge import judge
from jouleline.report import page

ORIGIN = {
    "file": "made_up.csv",
    "revision": "1",
    "licence": "MIT",
    "citation": "nobody",
    "models": ["constant", "flops"],
    "splits": {"H0": {"seeds": 2}},
}


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """A table that can be fetched from a file, into a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    columns = synthetic.table(24)
    names = ("device", "layers", "hidden", "seq_len", "micro_batch", "time_s", "energy_j")
    lines = [",".join(names)]
    lines += [",".join(str(columns[name][row]) for name in names) for row in range(24)]
    path = tmp_path / "there" / "made_up.csv"
    path.parent.mkdir()
    path.write_text("\n".join(lines))
    return ORIGIN | {"url": path.as_uri(), "sha256": digest_file(path)}


def test_a_table_is_fetched_once_and_checked_always(origin, tmp_path):
    path = fetch.find(origin, None)
    assert path.is_relative_to(tmp_path / "cache") and digest_file(path) == origin["sha256"]
    (tmp_path / "there" / "made_up.csv").unlink()
    assert fetch.find(origin, None) == path
    path.write_text("another")
    with pytest.raises(UserError, match="is not the table that is pinned"):
        fetch.find(origin, None)


def test_what_is_not_as_pinned_is_not_kept(origin, tmp_path):
    with pytest.raises(UserError, match=f"not {'0' * 64} as pinned"):
        fetch.find(origin | {"sha256": "0" * 64}, None)
    assert not list((tmp_path / "cache").rglob("*.csv"))


def test_without_a_network_the_remedy_is_a_folder(origin, tmp_path):
    gone = origin | {"url": "file:///nowhere/made_up.csv"}
    with pytest.raises(UserError, match="cannot fetch file:///nowhere.*FROM=FOLDER"):
        fetch.find(gone, None)
    assert fetch.find(gone, tmp_path / "there").name == "made_up.csv"
    assert fetch.find(gone, tmp_path) is None
    assert fetch.find(origin | {"url": None}, None) is None


def test_every_public_table_says_where_it_is_and_under_which_licence():
    public = {name: mapping["origin"] for name, mapping in BUILT_IN.items() if "origin" in mapping}
    assert public
    for name, origin in public.items():
        text = "\n".join(fetch.told(name, origin))
        assert origin["licence"] in text and origin["citation"] in text
        if origin["url"]:
            assert origin["revision"] in origin["url"] and len(origin["sha256"]) == 64
        else:
            assert origin["why_not"] in text


def test_a_file_becomes_runs_fits_scores_and_a_page(origin, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", (page.headline, page.provenance))  # the others draw many figures
    same = ("device", "layers", "hidden", "seq_len", "micro_batch", "time_s", "energy_j")
    constants = {"device_count": 1, "tensor_parallel": 1, "zero_stage": 0, "heads": 4, "intermediate": 512}
    mapping = {
        "columns": {name: name for name in same},
        "constants": constants | {"precision": "bf16", "steps": 1},
        "origin": origin,
    }
    words = list(judge("made_up", mapping, fetch.find(origin, None), tmp_path / "out"))
    assert words == ["constant on H0 of made_up", "flops on H0 of made_up"]
    scores = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert {row["model"] for row in scores["results"]} == {"constant", "flops"}
    assert all(np.isfinite(row["mape"]) for row in scores["results"] if row["identified"])
    html = (tmp_path / "out" / "report.html").read_text()
    assert "made_up: nobody (MIT)" in html and "outside" in html
