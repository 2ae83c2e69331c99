"""The page as a reader, a browser and a screen reader get it."""

import base64
import dataclasses
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import fabricated_campaign
import pytest
from jouleline.report import inputs, labels, page
from jouleline.report.sections import headline, heldout, parameters, runs
from page_reader import read

PAGES = ("estimated_page", "measured_page", "empty_page")
_LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background", "cite"}


@pytest.fixture(params=PAGES)
def any_page(request):
    return request.getfixturevalue(request.param)


def test_the_page_needs_nothing_from_outside(any_page):
    tree = read(any_page)
    assert not tree.all("link", "iframe", "object", "embed", "img", "base")
    assert _script(any_page) in any_page
    for element in tree.all():
        assert not _LOADS & set(element.attributes), element.tag
        assert not any(name.startswith("on") for name in element.attributes), element.tag
        target = element.attributes.get("href") or element.attributes.get("xlink:href") or "#"
        assert target.startswith("#"), f"{element.tag} points to {target}"
    assert not re.search(r"@import|url\((?!#)", any_page)
    assert "default-src 'none'" in any_page


def _script(text: str) -> str:
    """The one script of a page, which its policy lets run by its digest, and no other."""
    (script,) = read(text).all("script")
    assert not script.attributes and text.count("<script") == 1
    body = re.search(r"<script>(.*?)</script>", text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text
    return body


def test_every_id_is_unique_and_every_link_arrives(any_page):
    tree = read(any_page)
    ids = [element.attributes["id"] for element in tree.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    targets = {
        e.attributes["href"].removeprefix("#") for e in tree.all("a", "use") if e.attributes.get("href")
    }
    clips = set(re.findall(r"url\(#([^)]*)\)", any_page))
    assert (targets | clips) <= set(ids)


def test_headings_are_in_order(any_page):
    levels = [int(element.tag[1]) for element in read(any_page).all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_headers(any_page):
    tables = read(any_page).all("table")
    assert tables
    for table in tables:
        (caption,) = table.all("caption")
        assert caption.text
        width = len(table.all("thead")[0].all("th"))
        for row in table.all("tbody")[0].all("tr"):
            cells = row.all("th", "td")
            assert sum(int(cell.attributes.get("colspan") or 1) for cell in cells) == width, caption.text
        assert all(head.attributes.get("scope") for head in table.all("th")), caption.text


def test_figures_have_words(estimated_page):
    figures = read(estimated_page).all("figure")
    assert len(figures) > 20
    for figure in figures:
        (svg,) = figure.all("svg")
        assert svg.attributes["role"] == "img"
        assert len(svg.attributes["aria-label"]) > 30


def test_an_estimate_is_named_at_the_top_and_on_what_shows_energies_only(estimated_page):
    tree = read(estimated_page)
    assert labels.ESTIMATED in tree.all("header")[0].children[0].text
    stamped = {
        caption.text.split(" (")[0] for caption in tree.all("caption") if labels.ESTIMATED in caption.text
    }
    plain = {c.text.split(" (")[0] for c in tree.all("caption") if labels.ESTIMATED not in c.text}
    energies = (
        "Held-out scores: energy",
        "More scores: energy",
        "Gates",
        "All runs",
        "Parameters",
        "Coefficients",
    )
    for words in energies:
        assert any(caption.startswith(words) for caption in stamped), words
    for words in ("Held-out scores: time", "Checks", "Environment", "Where the time", "Outcomes", "runs: "):
        assert any(caption.startswith(words) for caption in plain), words
    for figure in tree.all("figure"):
        texts = [text.text for text in figure.all("svg")[0].all("text")]
        words = figure.all("svg")[0].attributes["aria-label"]
        of_time = ("time per token", "Time, H", "Mean time", "Efficiency η", "Achieved FLOP/s")
        if any(word in words for word in of_time):
            assert labels.ESTIMATED not in texts, words
        else:
            assert labels.ESTIMATED in texts, words
        assert "measured energy" not in texts


def test_a_measured_campaign_says_nothing_of_estimates(measured_page):
    tree = read(measured_page)
    shown = [tree.all("header")[0], *tree.all("caption", "summary", "figure", "h2", "h3", "dl", "p")]
    assert not [element.text for element in shown if "estimate" in element.text.lower()]
    assert any("measured energy" in text.text for text in tree.all("text"))
    assert "Energy measured: NVML energy counter." in tree.all("header")[0].text


def test_one_estimated_run_among_measured_ones_marks_the_page(measured):
    mixed = [dict(run) for run in measured.runs]
    mixed[0]["energy_source"] = "estimate"
    sources = dataclasses.replace(measured, runs=mixed).energy_sources
    assert labels.estimate_notice(sources) == labels.PARTLY_ESTIMATED


def test_every_run_is_listed_with_what_became_of_it(estimated, estimated_page):
    rows = _rows(estimated_page, "All runs")
    assert {row[0] for row in rows} == {run["run_id"] for run in estimated.runs}
    outcomes = {row[0]: row[1] for row in rows}
    for run in estimated.runs:
        assert outcomes[run["run_id"]] == (run["verdict"] if run["status"] == "ok" else run["status"])


def test_unknown_is_a_dash_and_never_a_zero(estimated, estimated_page):
    (oom,) = [run for run in estimated.runs if run["status"] == "oom"]
    (row,) = [row for row in _rows(estimated_page, "All runs") if row[0] == oom["run_id"]]
    time_s, energy_j, source, power_w, speed, per_token = row[2:8]
    assert (time_s, energy_j, source, power_w, speed, per_token) == ("–",) * 6
    for table in read(estimated_page).all("table"):
        assert not {"nan", "None", "null", "inf", "NaN"} & {cell.text for cell in table.all("td", "th")}


def test_what_failed_is_told_with_its_reason_and_harmless_text(estimated_page):
    rows = _rows(estimated_page, "Runs that failed or were left out")
    assert sorted(row[2] for row in rows) == ["ok", "oom"]
    assert all(fabricated_campaign.HOSTILE in row[4] for row in rows)
    assert "alert" not in _script(estimated_page)


def test_hostile_names_stay_text_in_figures_too(tmp_path):
    loaded = inputs.load(**fabricated_campaign.write(tmp_path))
    name = '"><script>alert(1)</script>$\\frac{'
    rows = [dict(run) | {"device": name, "family": f"{name}{run['family']}"} for run in loaded.runs]
    predictions = [row for row in loaded.predictions if row["model"] == "roofline" and row["split"] == "H0"]
    results = [row for row in loaded.validation["results"] if row["model"] == "roofline"]
    for row in (*predictions, *results):
        row["model"] = name
    hostile = dataclasses.replace(
        loaded,
        campaign=name,
        runs=rows,
        predictions=predictions,
        headline=name,
        validation=loaded.validation | {"results": results},
        settings={"traces": 0},
    )
    text = page.render(hostile)
    assert "alert" not in _script(text)
    assert name in read(text).all("h1")[0].text
    assert any(
        name in svg.attributes["aria-label"]
        for svg in read(text).all("svg")
        if "aria-label" in svg.attributes
    )


def test_the_headline_is_the_models_held_out_error(estimated, estimated_page):
    tree = read(estimated_page)
    tiles = {
        tile.all("dt")[0].text: tile.all("dd")[0].text
        for tile in tree.all("div")
        if tile.attributes.get("class") == "tile"
    }
    energy = next(text for label, text in tiles.items() if label.startswith("Energy error, H0"))
    assert "5.0\u202f%" in energy and "3.5 to 7.5\u202f%" in energy
    assert "best other model: paper law, η parametric, 22\u202f%" in energy, "post-run models are no rivals"
    floor = next(text for label, text in tiles.items() if label.startswith("Noise floor"))
    assert "1.2\u202f%" in floor and "0.9\u202f%" in floor
    changed = [dict(row) for row in estimated.validation["results"]]
    for row in changed:
        if (row["model"], row["split"], row["target"]) == ("roofline", "H0", "energy"):
            row["mape"] = 0.0777
    other = dataclasses.replace(estimated, validation=estimated.validation | {"results": changed})
    assert "7.8\u202f%" in _section(other, "headline").blocks[0].text


def test_predictions_that_could_not_be_made_are_counted_beside_the_error(estimated):
    rows = [dict(row, n_not_identified=8) for row in estimated.validation["results"]]
    other = dataclasses.replace(estimated, validation=estimated.validation | {"results": rows})
    sentence, tiles = _section(other, "headline").blocks[:2]
    assert "24 of 32 predictions, the others not identified" in sentence.text
    assert tiles.tiles[0].context.startswith("24 of 32 predictions")


def test_runs_of_which_the_same_check_fails_share_a_line(estimated):
    ids = [run["run_id"] for run in estimated.runs]
    check = {
        "name": "energy_measured",
        "passed": False,
        "severity": "warning",
        "message": "it is not measured",
    }
    checks = [check | {"run_id": run_id} for run_id in ids] + [check | {"run_id": ids[3], "name": "other"}]
    blocks = _section(dataclasses.replace(estimated, checks=checks), "runs").blocks
    table = next(b for b in blocks if getattr(b, "caption", "").startswith("Checks that failed"))
    cells = {row[0].text: [cell.text for cell in row[3:]] for row in table.rows}
    assert cells == {"energy measured": ["26", "all"], "other": ["1", ids[3]]}


def test_post_run_rows_are_named_so(estimated_page):
    rows = [row for row in _rows(estimated_page, "Held-out scores: energy") if len(row) > 1]
    flagged = {row[0] for row in rows if "post-run" in row[0]}
    assert flagged == {"paper law, η measured (post-run)", "mean power × predicted time (post-run)"}
    assert len(rows) == len(fabricated_campaign.MODELS) * len(fabricated_campaign.SPLITS)


def test_what_is_not_identified_is_not_quoted(estimated, estimated_page):
    rows = {row[0]: row for row in _rows(estimated_page, "Parameters: roofline") if len(row) > 1}
    assert rows["overlap"][1:3] == ["not identified", "–"]
    assert rows["peak_flops"][1:3] == ["21.3\u202fGFLOP/s", "19.0\u202fGFLOP/s to 24.0\u202fGFLOP/s"]
    fits = [dict(fit) for fit in estimated.fits]
    shaky = {"value": 123.456, "unit": "W", "lo95": 1.0, "hi95": 999.0, "identified": False}
    for fit in fits:
        fit["folds"] = [dict(fit["folds"][0], parameters={"static_power_w": shaky})]
    assert "123" not in str(_section(dataclasses.replace(estimated, fits=fits), "parameters"))
    scores = _rows(estimated_page, "Held-out scores: time")
    assert any(row[1] == "not identified" for row in scores if len(row) > 1)
    assert "one family only" in estimated_page


def test_a_campaign_in_which_all_failed_is_still_readable(empty_page):
    tree = read(empty_page)
    text = tree.all("main")[0].text
    assert "No held-out error can be quoted" in text and "no run finished" in text
    (row,) = [row for row in _rows(empty_page, "All runs") if row]
    assert row[1] == "failed"
    assert "trainer_exit" in _rows(empty_page, "Runs that failed")[0][4]
    assert "No workload was measured on more than one device count" in text
    assert "not identified" in text


def test_a_run_that_left_only_a_record_is_listed(tmp_path):
    arguments = fabricated_campaign.write_empty(tmp_path)
    record = {
        "run_id": "lost-1",
        "status": "failed",
        "reason": "trainer died of signal 9",
        "row": {"layers": 3},
    }
    (tmp_path / "runs/lost-1").mkdir()
    (tmp_path / "runs/lost-1/run.failed.json").write_text(json.dumps(record))
    rows = _rows(page.render(inputs.load(**arguments)), "Runs that failed")
    assert ["lost-1", "failed", "trainer died of signal 9"] in [[row[0], row[2], row[4]] for row in rows]


def test_gates_are_judged_in_words(estimated_page):
    (*_, verdict, effect), (*first, value, _, ceiling, limit, _, missed, _) = _rows(estimated_page, "Gates")
    assert (verdict, effect) == ("passed", "fails the build")
    assert (value, ceiling, limit, missed) == ("0.610", "0.720", "≥ 0.950", "failed"), first


def test_gates_that_could_not_be_judged_are_named_but_not_failed(estimated):
    gate = dict(
        estimated.validation["gates"][0],
        name="unseen_count",
        split="H5",
        value=None,
        passed=None,
        enabled=False,
    )
    gates = [*estimated.validation["gates"], gate]
    other = dataclasses.replace(estimated, predictions=[], validation=estimated.validation | {"gates": gates})
    table = next(b for b in _section(other, "heldout").blocks if getattr(b, "caption", "") == "Gates")
    assert len(table.rows) == 2 and "unseen count" in table.note
    gate["enabled"] = True
    table = next(b for b in _section(other, "heldout").blocks if getattr(b, "caption", "") == "Gates")
    assert [row[-2].text for row in table.rows] == ["passed", "failed", "not judged"]


def test_in_sample_rows_are_no_results(estimated):
    row = dict(estimated.validation["results"][0], split="all", mape=0.0001)
    results = [row, *estimated.validation["results"]]
    other = dataclasses.replace(estimated, validation=estimated.validation | {"results": results})
    assert all(result["split"] != "all" for result in other.results)


def test_a_split_without_folds_says_why_in_the_headline(estimated):
    results = [row for row in estimated.validation["results"] if row["split"] != "H1"]
    blank = {
        "model": "roofline",
        "split": "H1",
        "efficiency_mode": None,
        "post_run": False,
        "mape": None,
        "n": 0,
    }
    blank |= {"identified": False, "reason": "only one architecture"}
    results += [blank | {"target": target} for target in ("energy", "time")]
    other = dataclasses.replace(estimated, validation=estimated.validation | {"results": results})
    tile = _section(other, "headline").blocks[1].tiles[1]
    assert (tile.value, tile.detail, tile.context) == ("–", "not identified", "only one architecture")


def test_what_is_not_identified_is_told_with_its_reason(estimated_page):
    assert _rows(estimated_page, "What is not identified") == [
        ["mean power × predicted time (post-run)", "H1", "time", "all", "one family only"]
    ]


def test_text_has_contrast_in_light_and_dark():
    style = (Path(page.__file__).parent / "templates/style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.S)
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        for back in ("page", "surface"):
            for front in ("ink", "muted", "accent", "warn"):
                assert _contrast(colours[front], colours[back]) >= 4.5, (front, back)
            for number in range(1, 8):
                assert _contrast(colours[f"series-{number}"], colours[back]) >= 3, (number, back)
        for tone in ("good", "bad", "warn"):
            assert _contrast(colours[tone], colours[f"{tone}-back"]) >= 4.5, tone


def _contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _rows(text: str, caption: str) -> list[list[str]]:
    """Cells of the body of the table whose caption starts with `caption`."""
    (table,) = [t for t in read(text).all("table") if t.all("caption")[0].text.startswith(caption)]
    return [[cell.text for cell in row.all("th", "td")] for row in table.all("tbody")[0].all("tr")]


def _section(loaded, anchor: str):
    """One section, without drawing the others."""
    module = {"headline": headline, "heldout": heldout, "parameters": parameters, "runs": runs}[anchor]
    return module.build(loaded, "")


def test_the_time_of_a_job_is_shown_phase_by_phase(measured_page, measured):
    section = next(s for s in read(measured_page).all("section") if "Time of a job" in s.text)
    table = section.all("table")[0].text
    assert "imports" in table and "Import of torch" in table and "queue" not in table
    assert section.all("svg") and "6.50" in table
    assert "Time of a job" not in page.render(dataclasses.replace(measured, timings=[]))


def test_a_report_of_a_part_says_so(estimated):
    count = len(estimated.runs)
    text = page.render(dataclasses.replace(estimated, planned=count + 3))
    assert f"Partial: {count} of the {count + 3} runs of the grid are measured." in text
    assert "Partial:" not in page.render(dataclasses.replace(estimated, planned=count))
