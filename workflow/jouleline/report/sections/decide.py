"""Decide: what to run next, for the asks of the campaign. This stands before all evidence."""

from jouleline.report import labels
from jouleline.report.blocks import Cell, Panels, Section, Table, Text, columns
from jouleline.report.figures import decide as figures
from jouleline.report.figures.roofline import roofline
from jouleline.report.inputs import Inputs, Row
from jouleline.report.numbers import DASH, count, duration, known, number, percent, quantity


def build(inputs: Inputs, stamp: str) -> Section | None:
    """The answers one after the other, then what to measure. None without asks and without anything to measure."""
    blocks: list = []
    for answer in inputs.answers:
        blocks += _answer(answer)
    blocks += _next(inputs.suggested, stamp)
    return Section("decide", "Decide", blocks) if blocks else None


def _answer(answer: Row) -> list:
    ask = answer["ask"]
    question = Text(f"{ask['name']}: {ask['words']}.", "lead")
    if "front" not in answer:
        return [question, Text(f"No answer: {answer['reason']}.", "warn")]
    stamp = (
        _SHEET
        if answer["energy_source"] == "data sheet"
        else labels.estimate_notice([answer["energy_source"]])
    )
    drawn = [figures.front(answer["all"], answer["front"], stamp), figures.parts(answer["front"], stamp)]
    # Predicted rates come from times, so an estimate of energies does not matter for them.
    if answer.get("roof"):
        drawn.append(
            roofline(answer["roof"], answer["all"], answer["front"], answer.get("measured") or [], "")
        )
    panels = Panels("The front", [figure for figure in drawn if figure], note=_NOTE)
    return [question, _picks(answer, stamp), panels, _front(answer, stamp), Text(_about(answer), "note")]


_SHEET = "Energy is bounded by a data sheet, not measured"
_NOTE = (
    "Faint marks are all candidates. The front is what no other candidate beats in both time and energy, numbered from "
    "the fastest, with 95 % intervals. Compute and memory: energy per FLOP and byte. Communication and host: static "
    "power while devices wait for them, and energy per byte sent. Static: the rest of static power. The roof: what the "
    "peak of a device and its memory bandwidth allow at an intensity; how far below it a configuration is predicted, "
    "and where the runs of this campaign were measured. Measured runs may lie above it: it says what a device did "
    "while it was calibrated, and under another clock or load it does more or less; what caches hold passes no memory."
)


def _next(suggested: Row, stamp: str) -> list:
    """The runs that would teach most. Nothing where none may be measured, or no model is fitted."""
    if not suggested.get("runs"):
        why = suggested.get("candidates") != 0 and suggested.get("reason")
        return [Text(f"Which runs would teach most is not known: {why}.", "note")] if why else []
    heads = columns("#Number", "Run", "#Devices", "#Time", "#Energy", "#Expected error after it", "Why")
    rows = [
        [
            count(n),
            Cell(run["name"], "wide"),
            count(run["device_count"]),
            duration(run["expected_time_s"]),
            quantity(run["expected_energy_j"], "J"),
            percent(run["expected_error_after"]),
            Cell(run["reason"].partition(";")[0], "wide"),
        ]
        for n, run in enumerate(suggested["runs"], 1)
    ]
    about = {"asks": "the candidates of the asks", "grid": "the rows of the grid"}[suggested["target"]]
    before = percent(suggested["runs"][0]["expected_error_before"])
    note = (
        f"Of {count(suggested['candidates'])} that may be measured. The expected error of the energies of {about} is "
        f"{before} now, by the hybrid fitted to all runs, and falls run by run. A run is taken to last as long as the "
        "runs so far."
    )
    return [Table("What to measure next", heads, rows, note=note, stamp=stamp)]


def _about(answer: Row) -> str:
    lacking = f", {count(answer['not_predicted'])} of them not predicted" if answer["not_predicted"] else ""
    tried = f"{count(answer['candidates'])} candidates{lacking}. Predicted by {answer['source']}."
    return f"{tried} {answer['memory']} {answer['note']}"


def _picks(answer: Row, stamp: str) -> Table:
    heads = columns(
        "Goal", "Take", "#Time", "#Energy", "How sure", "#A wrong choice wastes", "Extrapolates along"
    )
    rows = [
        [
            Cell(pick["goal"]),
            Cell(pick["name"], "wide"),
            *_figures(pick)[:2],
            _sure(pick),
            quantity(pick["worst_extra_kwh"] * 1000, "Wh"),
            _axes(pick),
        ]
        for pick in answer["picks"]
    ]
    note = (
        "How sure: shares of the model's draws in which the choice is the best, and takes at most 2 % more. "
        "A wrong choice: the most expensive candidate that meets the same limit. 95 % intervals."
    )
    return Table("What to run", heads, rows, note=note, stamp=stamp)


def _sure(pick: Row) -> Cell | str:
    if not known(pick["sure"]):
        return DASH
    limit = f"; meets its limit in {percent(pick['meets'])}" if pick["meets"] < 1 else ""
    return Cell(f"best in {percent(pick['sure'])}, near in {percent(pick['near'])}{limit}", "wide")


def _front(answer: Row, stamp: str) -> Table:
    heads = columns(
        "#Number", "Configuration", "#Time", "#Energy", f"#Cost ({answer['currency']})", "#CO2e (kg)"
    )
    heads += columns("#Memory (GiB)", "Extrapolates along")
    rows = [
        [str(n), Cell(entry["name"], "wide"), *_figures(entry), number(entry["memory_gib"]), _axes(entry)]
        for n, entry in enumerate(answer["front"], 1)
    ]
    return Table(f"The front in numbers ({len(rows)})", heads, rows, folded=len(rows) > 8, stamp=stamp)


def _figures(entry: Row) -> list[str]:
    """Time, energy, each with its 95 % interval, cost and CO2."""
    time = [entry[name] for name in ("time_h", "time_lo95_h", "time_hi95_h")]
    energy = [entry[name] for name in ("energy_kwh", "energy_lo95_kwh", "energy_hi95_kwh")]
    shown = [duration(value if value is None else value * 3600) for value in time]
    kwh = [quantity(value if value is None else value * 1000, "Wh") for value in energy]
    found = [text if DASH in ends else f"{text} ({' to '.join(ends)})" for text, *ends in (shown, kwh)]
    return [*found, number(entry["cost"]), number(entry["co2_kg"])]


def _axes(entry: Row) -> Cell:
    axes = entry["extrapolation_axes"]
    return Cell(axes.replace(",", ", ").replace("_", " ") or DASH, "warn" if axes else "")
