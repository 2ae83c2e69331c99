"""The page in a real browser, on a wide and a narrow screen, light, dark and printed: whole, quiet, and in no need of
anything from outside."""

import dataclasses
import os
from pathlib import Path

import browser
import pytest
from jouleline.choose import ask
from jouleline.choose.answer import decide
from jouleline.report import page

from tests.slurm import packages

MEASURE = Path(__file__).with_name("measure_page.js").read_text(encoding="utf-8")
OPEN = "document.querySelectorAll('details').forEach((one) => (one.open = true))"
LOOKS = [(1280, {}), (1280, {"dark": True}), (390, {}), (390, {"dark": True}), (1280, {"printed": True})]


@pytest.fixture(scope="module")
def chromium():
    try:
        path = browser.obtain()
    except packages.Unavailable as problem:
        if os.environ.get("CI") == "true":
            pytest.fail(str(problem))
        pytest.skip(f"THE PAGE IS NOT LOOKED AT: {problem}")
    with browser.Browser(path) as started:
        yield started


@pytest.fixture(scope="module")
def shown(chromium, estimated, tmp_path_factory):
    """A browser with a page open that has every section, everything unfolded."""
    given = {"name": "next", "devices": 8, "deadline_h": 20, "device": "H100", "tokens": 1e9, "seq_len": 512}
    given |= {"layers": 24, "hidden": 1024, "heads": 16, "intermediate": 4096}
    answer = decide(ask.make(given, "the ask"), None, {"price_per_kwh": 1})
    answer["measured"] = [[80.0, 1e14, "bert-L24-d1024-r1"], [90.0, 3e14, "bert-L24-d1024-r2"]]
    run = {"name": "next: 8 devices, ZeRO-3, batch 4 x 2, checkpointing", "device_count": 8}
    run |= {"reason": "is known no better than to 20.0%; more", "expected_time_s": 30.0}
    run |= {"expected_energy_j": 5e4, "expected_error_before": 0.12, "expected_error_after": 0.1}
    suggested = {"target": "asks", "candidates": 300, "runs": [run] * 3, "reason": None}
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(dataclasses.replace(estimated, answers=[answer], suggested=suggested), path)
    chromium.look(1280)
    chromium.open(path)
    chromium.run(OPEN)
    return chromium


@pytest.mark.parametrize("width, how", LOOKS)
def test_no_text_is_cut_or_overlaps(shown, width, how):
    shown.look(width, **how)
    assert shown.run(MEASURE) == []


def test_the_measure_sees_what_is_wrong(shown):
    """Of a page that is spoiled on purpose."""
    shown.look(1280)
    spoil = """(() => {
      const spoiled = document.createElement("div");
      spoiled.id = "spoiled";
      spoiled.innerHTML = `<p style="width: 40px; white-space: nowrap">far too long for its room</p>
        <p style="margin-bottom: -30px">one upon</p><p>the other</p>
        <div class="scroll" aria-label="wide"><table><tr><td style="min-width: 2000px">a</td></tr></table></div>
        <svg role="img" aria-label="short" viewBox="0 0 100 50" width="200"><text x="5" y="20">left</text>
        <text x="8" y="22">right</text><text x="90" y="40">outside</text></svg>`;
      document.querySelector("main").append(spoiled);
    })()"""
    shown.run(spoil)
    faults = "\n".join(shown.run(MEASURE))
    shown.run("document.getElementById('spoiled').remove()")
    for words in ('cut: "far too', 'overlap: "the other" "one upon"', "columns are cut", 'overlap: "left"'):
        assert words in faults, faults
    assert 'outside of its drawing: "outside"' in faults and "drawing without words" in faults


def test_the_page_says_nothing_and_asks_for_nothing(shown):
    assert [kind for kind, _ in shown.heard] == ["request"], shown.heard


def test_tables_are_sorted_and_filtered(shown):
    table = "[...document.querySelectorAll('table')].find((one) => one.caption.textContent.startsWith('All runs'))"
    column = f"[...{table}.tHead.rows[0].cells].findIndex((one) => one.textContent === 'Energy (J)')"
    shown.run(f"{table}.tHead.rows[0].cells[{column}].querySelector('button').click()")
    texts = shown.run(f"[...{table}.tBodies[0].rows].map((row) => row.cells[{column}].textContent)")
    known = [float(text.replace("\u202f", "")) for text in texts if text != "–"]
    assert known == sorted(known) and len(known) > 20
    assert texts[-1] == "–", "what is unknown stands last"
    shown.run(
        f"(() => {{ const one = {table}.caption.querySelector('input'); one.value = 'oom'; "
        "one.dispatchEvent(new Event('input')) })()"
    )
    left = shown.run(f"[...{table}.tBodies[0].rows].filter((row) => !row.hidden).length")
    assert left == 1
