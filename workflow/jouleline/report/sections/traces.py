"""Power traces of a few runs: one per parallel strategy, and an unusual one if there is one."""

from jouleline.report import labels, trace
from jouleline.report.blocks import Panels, Section, Text
from jouleline.report.figures.power import power_trace
from jouleline.report.inputs import Inputs, Row

_MOST = 4  # if the campaign does not say


def build(inputs: Inputs, stamp: str) -> Section:
    """Traces with warm-up, window and evaluation."""
    most = inputs.settings.get("traces", _MOST)
    found = []
    for run in _candidates(inputs) if most else []:
        read = trace.read(run, inputs.runs_dir / run["run_id"])
        if read:
            found.append(read)
        if len(found) >= most:
            break
    if not found:
        return Section("traces", "Power traces", [Text("No run left samples that could be drawn.", "warn")])
    figures = [
        power_trace(item, item.run.get("idle_power_w"), item.run.get("mean_power_w"), stamp) for item in found
    ]
    note = (
        "The longest valid run of each parallel strategy, then others. Energy is counted in the measured window only "
        "(blue); warm-up and evaluation lie outside it. Dashed: mean power of the window; dotted: idle before the run."
    )
    return Section(
        "traces",
        "Power traces",
        [Panels("Power over time, and the regions that were marked", figures, note=note, wide=True)],
    )


def _candidates(inputs: Inputs) -> list[Row]:
    """Runs in the order of interest: one of each strategy first, then degraded and invalid ones."""
    done = [run for run in inputs.runs if run.get("status") == "ok"]
    by_length = sorted(
        done, key=lambda run: (run.get("verdict") != "valid", -(run.get("time_s") or 0), run["run_id"])
    )
    firsts: dict[str, Row] = {}
    for run in by_length:
        firsts.setdefault(labels.strategy(run).name, run)
    odd = [run for run in by_length if run.get("verdict") != "valid"]
    chosen = [*firsts.values(), *odd, *by_length]
    return list({run["run_id"]: run for run in chosen}.values())
