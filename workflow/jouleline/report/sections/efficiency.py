"""Efficiency eta(N), power ratio rho(N) and energy per token against the number of devices."""

from jouleline.report import labels, ratios
from jouleline.report.blocks import Group, Panels, Section, Table, Text, columns
from jouleline.report.figures.scaling import against_devices
from jouleline.report.inputs import Inputs
from jouleline.report.numbers import count, number

_CURVES = (
    ("paper, data parallel, normalised", ratios.paper_data_parallel, "--"),
    ("paper, tensor parallel, normalised", ratios.paper_tensor_parallel, ":"),
)
_MEANING = (
    "η(N) is the useful tokens per second on N devices over N/N0 times those on N0, the smallest device count "
    "measured of the same workload, so η(N0) = 1 by definition. It is measured, so it is known only after the run. "
    "Energy per token follows exactly from two ratios: E(N)/E(N0) = ρ(N)/η(N), where ρ is the power per device "
    "relative to N0. The paper's shortcut, E in proportion to 1/η, is the special case ρ = 1."
)


def build(inputs: Inputs, stamp: str) -> Section:
    """Figures and the table of every workload that was run on more than one device count."""
    points = ratios.scaling(inputs.runs)
    if not points:
        text = "No workload was measured on more than one device count, so there is no efficiency to show."
        return Section("efficiency", "Scaling efficiency", [Text(text)])
    figures = [
        against_devices(points, lambda p: p.eta, "Efficiency η(N), measured", "η(N)", _CURVES, ""),
        against_devices(points, lambda p: p.rho, "Power per device, relative", "ρ(N)", (), stamp),
        against_devices(
            points, lambda p: p.energy_ratio, "Energy per token, relative", "E(N)/E(N0)", (), stamp
        ),
    ]
    legend = labels.legend({point.strategy for point in points})
    panels = Panels("From N0 to N devices, one line per workload", figures, legend)
    return Section("efficiency", "Scaling efficiency", [Text(_MEANING), panels, _table(points, stamp)])


def _table(points: list[ratios.ScalingPoint], stamp: str) -> Table:
    heads = columns(
        "Strategy", "#N", "#N0", "#η(N)", "#ρ(N)", "#E(N)/E(N0)", "#1/η, the paper's shortcut", "#Runs"
    )
    rows: list = []
    for family in dict.fromkeys(point.family for point in points):
        rows.append(Group(family))
        rows += [_row(point) for point in points if point.family == family]
    caption = "Efficiency of every workload that was run on more than one device count"
    return Table(caption, heads, rows, folded=len(points) > 12, stamp=stamp)


def _row(point: ratios.ScalingPoint) -> list[str]:
    values = (point.eta, point.rho, point.energy_ratio, 1 / point.eta)
    counts = (point.devices, point.reference)
    return [point.strategy.name, *map(count, counts), *map(number, values), count(point.runs)]
