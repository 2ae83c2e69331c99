"""The first section: the answers to a campaign's asks, and those that have none."""

import dataclasses

import pytest
from jouleline.choose import ask
from jouleline.choose.answer import decide
from jouleline.report import page
from jouleline.report.sections import decide as section
from page_reader import read

ASK = {
    "layers": 24,
    "hidden": 1024,
    "heads": 16,
    "intermediate": 4096,
    "seq_len": 512,
    "tokens": 1e9,
    "device": "H100",
}


@pytest.fixture(scope="module")
def answer():
    return decide(
        ask.make({**ASK, "name": "next", "devices": 8, "deadline_h": 20}, "the ask"),
        None,
        {"price_per_kwh": 1},
    )


def test_the_page_begins_with_the_decision(estimated, answer):
    refused = {
        "ask": {"name": "other", "words": "the work"},
        "reason": "other: none of 3 candidates meets deadline_h 1",
    }
    text = page.render(dataclasses.replace(estimated, answers=[answer, refused], predictions=[], runs=[]))
    first = read(text).all("section")[0]
    assert first.attributes["id"] == "decide"
    assert "cheapest within 20 h" in first.text and answer["picks"][0]["name"] in first.text
    assert "No answer: other: none of 3 candidates meets deadline_h 1." in first.text
    assert "Energy is bounded by a data sheet, not measured" in first.text
    assert "nan" not in first.text and "None" not in first.text


def test_every_point_of_the_front_is_in_the_table_and_in_the_figure(answer):
    built = section.build(type("Inputs", (), {"answers": [answer]}), "")
    table = next(b for b in built.blocks if getattr(b, "caption", "").startswith("The front in numbers"))
    assert [row[1].text for row in table.rows] == [entry["name"] for entry in answer["front"]]
    panels = next(b for b in built.blocks if getattr(b, "title", "") == "The front")
    assert all(entry["name"] in panels.figures[0].alt for entry in answer["front"])
    titles = [figure.title for figure in panels.figures]
    assert titles == ["Time and energy of the candidates", "On the roof of one H100"], (
        "a data sheet does not say where the joules go"
    )
    assert "67.0\u202fTFLOP/s" in panels.figures[1].alt and "of the roof" in panels.figures[1].alt


def test_without_asks_there_is_no_such_section(estimated):
    assert section.build(estimated, "") is None
