"""A hold-out in parts, each a hold-out of its own on the page, and scores that are not of every prediction."""

import dataclasses
import json

import fabricated_campaign
import pytest
from jouleline.report import inputs, scores, terminal
from jouleline.report.points import points
from jouleline.report.sections import heldout
from jouleline.schemas import read_table, write_table
from jouleline.schemas.model import PREDICTIONS

SERIES = ("roofline", "modelled", False)
PARTS = {"zero-shot": 0.3, "5-runs": 0.04, "5-runs-planned": 0.02}


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """A campaign with H6: the predictions of one fold, each time off by another factor."""
    folder = tmp_path_factory.mktemp("parted")
    arguments = fabricated_campaign.write(folder)
    rows = read_table(PREDICTIONS, folder / "predictions/roofline/H0.parquet")
    written = [
        row
        | {"split": "H6", "fold": f"made-up CPU-{part}", "predicted_energy_j": row["energy_j"] * (1 + error)}
        for part, error in PARTS.items()
        for row in rows
        if row["fold"] == "seed-00"
    ]
    path = folder / "predictions/roofline/H6.parquet"
    write_table(PREDICTIONS, written, path)
    validation = json.loads((folder / "validation.json").read_text())
    score = next(row for row in validation["results"] if row["model"] == "roofline")
    validation["results"] += [
        score | {"split": "H6", "stratum": part, "mape": error} for part, error in PARTS.items()
    ]
    gate = validation["gates"][0] | {"split": "H6"}
    validation["gates"] += [
        gate | {"name": "unseen_device", "stratum": "zero-shot", "limit": 0.2},
        gate | {"name": "unseen_device_5_runs", "stratum": "5-runs", "limit": 0.08},
    ]
    (folder / "validation.json").write_text(json.dumps(validation))
    return inputs.load(**arguments | {"predictions": [*arguments["predictions"], path]})


def tables(loaded):
    """The tables of the section by the first words of their caption."""
    blocks = heldout.build(loaded, "").blocks
    return {block.caption.split(" (")[0]: block for block in blocks if hasattr(block, "caption")}


def test_every_part_has_its_own_points_score_and_gate(parted):
    assert parted.split_names == ["H0", "H1", *(f"H6 {part}" for part in sorted(PARTS))]
    limits = {"H6 zero-shot": 0.2, "H6 5-runs": 0.08, "H6 5-runs-planned": None}
    for part, error in PARTS.items():
        name = f"H6 {part}"
        found = points(parted, SERIES, name, "energy")
        assert found and all(point.error == pytest.approx(error) for point in found)
        assert parted.result(SERIES, name, "energy")["mape"] == error
        assert scores.gate_limit(parted, name, "energy") == limits[name]
    assert not points(parted, SERIES, "H6", "energy")
    assert scores.split_title("H6 5-runs") == "H6 5-runs, one device type out"


def test_tables_and_terminal_name_the_part(parted, tmp_path):
    found = tables(parted)
    groups = [row.text for row in found["Held-out scores: energy"].rows if hasattr(row, "text")]
    assert groups[2:] == [f"H6 {part}, one device type out" for part in sorted(PARTS)]
    assert [row[1].text for row in found["Gates"].rows][-2:] == ["H6 zero-shot", "H6 5-runs"]
    lines = [line.split() for line in terminal.headline(parted, tmp_path / "report.html")]
    assert [line[1] for line in lines if line[0] == "H6"] == sorted(PARTS)


def test_scores_and_gates_say_of_how_many_predictions_they_are(estimated):
    rows = [dict(row, n_not_identified=8, n_intervals=12) for row in estimated.validation["results"]]
    few = {"value": None, "passed": None, "n_predictions": 32, "enabled": False}
    gates = [estimated.validation["gates"][0] | few]
    document = estimated.validation | {"results": rows, "gates": gates}
    found = tables(dataclasses.replace(estimated, predictions=[], validation=document))
    (gate,) = found["Gates"].rows
    assert [cell.text for cell in gate[4:6]] == ["–", "24 of 32"]
    assert "less than 90\u202f% of the predictions" in found["Gates"].note
    table = found["Held-out scores: energy"]
    cells = dict(zip([column.header for column in table.columns], table.rows[1], strict=True))
    assert (cells["Predictions"].text, cells["Intervals"].text) == ("24 of 32", "12")


def test_without_intervals_coverage_is_a_dash(estimated):
    blank = dict.fromkeys(("coverage80", "coverage95", "width95"))
    rows = [dict(row, n_intervals=0, **blank) for row in estimated.validation["results"]]
    rows[0] |= {"coverage95": 0.9, "n_intervals": rows[0]["n"]}
    document = estimated.validation | {"results": rows}
    table = tables(dataclasses.replace(estimated, predictions=[], validation=document))[
        "Held-out scores: energy"
    ]
    place = [column.header for column in table.columns].index("Cover 95")
    shown = [row[place].text for row in table.rows if not hasattr(row, "text")]
    assert sorted(shown) == ["90\u202f%", *["–"] * (len(shown) - 1)]
