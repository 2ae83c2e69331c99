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
    built = section.build(type("Inputs", (), {"answers": [answer], "suggested": {}}), "")
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


def built(answers, suggested):
    return section.build(type("Inputs", (), {"answers": answers, "suggested": suggested}), "")


def test_measured_runs_are_under_the_roof_apart_from_candidates(answer):
    measured = [[100.0, 5e13, "bert-r1"], [200.0, 1e14, "bert-r2"]]
    with_runs, without = (
        next(b for b in built([one], {}).blocks if getattr(b, "title", "") == "The front").figures[1]
        for one in ({**answer, "measured": measured}, answer)
    )
    assert "Measured: 2 runs, 50.0\u202fTFLOP/s to 100\u202fTFLOP/s." in with_runs.alt
    assert "1 of them lie above the roof, the highest at 149\u202f% of it." in with_runs.alt
    assert "bert-r1, 50.0\u202fTFLOP/s, measured" in with_runs.svg and "measured runs" in with_runs.svg
    assert "easured" not in without.alt and "measured runs" not in without.svg


def test_the_runs_that_would_teach_most_come_with_what_they_take_and_bring():
    run = {"name": "mine: 2 devices", "device_count": 2, "reason": "is known no better than to 20.0%; rest"}
    run |= {"expected_time_s": 3.0, "expected_energy_j": 50.0}
    run |= {"expected_error_before": 0.12, "expected_error_after": 0.1}
    (table,) = built([], {"target": "asks", "candidates": 26, "runs": [run], "reason": None}).blocks
    (row,) = table.rows
    texts = [cell.text for cell in row]
    assert texts[1] == "mine: 2 devices" and texts[-1] == "is known no better than to 20.0%"
    assert "50.0\u202fJ" in texts and "10.0\u202f%" in texts and "12.0\u202f% now" in table.note
    (text,) = built([], {"target": "grid", "candidates": 3, "runs": [], "reason": "too few"}).blocks
    assert text.text == "Which runs would teach most is not known: too few."
    assert built([], {"target": "grid", "candidates": 0, "runs": [], "reason": "nothing to measure"}) is None
