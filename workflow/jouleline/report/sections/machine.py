"""The machine: what calibration measured, its idle power, and the software that it ran."""

import re

from jouleline.report.blocks import Cell, Panels, Section, Table, Text, columns
from jouleline.report.facts import facts, flatten
from jouleline.report.figures.calibration import saturation
from jouleline.report.inputs import Inputs, Row
from jouleline.report.numbers import count, known, number, percent, quantity, text


def build(inputs: Inputs, stamp: str) -> Section:
    """Calibration, idle, environment and protocol."""
    blocks: list[object] = [_calibration(inputs.calibration)]
    curve = saturation(inputs.calibration)
    if curve:
        blocks.append(Panels("How full a device gets", [curve], note=_CURVE_NOTE))
    blocks += [
        facts("Idle", flatten(inputs.idle, exact=False), folded=True),
        _environment(inputs),
        _protocol(inputs),
    ]
    return Section("machine", "Machine and protocol", [block for block in blocks if block])


_CURVE_NOTE = (
    "Matrix multiplications of growing size; half of the peak is reached at the half-saturation size. Small models "
    "launch small multiplications and leave the device partly empty."
)


def _calibration(calibration: Row) -> Table | Text:
    quantities = calibration.get("quantities") or []
    if not quantities:
        return Text("The machine was not calibrated.", "warn")
    rows = []
    for item in quantities:
        value = quantity(item.get("value"), str(item.get("unit") or ""))
        size = _size(item.get("size"))
        name = re.sub("_(w|s|flop)$", "", str(item.get("quantity"))).replace("_", " ")
        spread = percent(item.get("u_rel"))
        rows.append(
            [
                Cell(name),
                text(item.get("precision")),
                size,
                value,
                spread,
                count(item.get("n")),
                text(item.get("method")),
            ]
        )
    heads = columns("Quantity", "Precision", "#Size", "#Value", "#Rel. uncertainty", "#Repeats", "Method")
    device, length = calibration.get("device") or "the device", quantity(calibration.get("duration_s"), "s")
    caption = f"Calibration of {device}, {length}"
    return Table(caption, heads, rows, folded=len(rows) > 14)


def _size(value: float | None) -> str:
    """Ranks and small sizes as they are; large sizes with three digits."""
    return count(value) if known(value) and abs(value) < 1e6 and value == int(value) else number(value)


def _environment(inputs: Inputs) -> Table | Text:
    """Facts of the environment, with the number of runs that report each. So two values of one fact are visible."""
    seen: dict[tuple[str, str], int] = {}
    for record in inputs.records.values():
        for key, value in flatten(record.get("environment") or {}):
            seen[key, value] = seen.get((key, value), 0) + 1
    if not seen:
        return Text("No run left a record of its environment.", "warn")
    rows = [[Cell(key), value, count(n)] for (key, value), n in sorted(seen.items())]
    return Table(
        f"Environment ({count(len(rows))} facts)", columns("Fact", "Value", "#Runs"), rows, folded=True
    )


def _protocol(inputs: Inputs) -> Table | None:
    protocols = {tuple(flatten(record.get("protocol") or {})) for record in inputs.records.values()}
    if not protocols:
        return None
    if len(protocols) == 1:
        return facts("Measurement protocol", list(protocols.pop()), folded=True)
    shared = sorted(set.union(*map(set, protocols)))
    return facts(f"Measurement protocol (the runs have {len(protocols)} different ones)", shared)
