"""The section of a campaign that chose its own rows."""

import dataclasses

import pytest
from jouleline.report import page
from jouleline.report.sections import rounds as section
from page_reader import read


def made_up(number, kwh, before, stopped=None):
    entry = {
        "run_id": f"row-{number}",
        "reason": f"reason {number}",
        "expected_error_before": before,
        "expected_error_after": before,
        "job_kwh": None,
    }
    return {
        "round": number,
        "spent": {"runs": 8 * number - 8, "kwh": kwh, "gpu_hours": kwh},
        "errors": [None, 0.042][: number - 1],
        "stopped": stopped,
        "left_out": [],
        "runs": [] if stopped else [entry],
    }


ROUNDS = [made_up(1, 0.0, None), made_up(2, 0.5, 0.0611), made_up(3, 0.9, None, "9 rounds are done")]


def test_error_stands_against_energy_and_every_choice_has_its_reason(estimated):
    text = page.render(dataclasses.replace(estimated, rounds=ROUNDS, planned=80))
    found = next(one for one in read(text).all("section") if one.attributes["id"] == "rounds")
    for words in (
        "16 runs of 80 of the grid",
        "9 rounds are done",
        "reason 1",
        "reason 2",
        "6.1\u202f%",
        "4.2\u202f%",
    ):
        assert words in found.text, words
    assert "ESTIMATED" in found.text.upper() and "nan" not in found.text and "None" not in found.text


@pytest.mark.parametrize("rounds", [ROUNDS[:1], ROUNDS[:2], [made_up(1, 0.0, None, "no row fits")]])
def test_a_campaign_on_its_way_has_the_section_too(estimated, rounds):
    assert section.build(dataclasses.replace(estimated, rounds=rounds), "").blocks


def test_without_rounds_there_is_no_such_section(estimated):
    assert section.build(estimated, "") is None
