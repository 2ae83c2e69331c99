"""The rounds of a campaign that chooses its own rows: what was learnt, whether to go on, and which runs come next.

A choice is final: a round that is worked out again keeps its runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jouleline import plan as plans
from jouleline.campaign.frugal import ends, for_asks, run_ids
from jouleline.campaign.protocol import complete_protocol
from jouleline.choose import ask, targets
from jouleline.errors import UserError
from jouleline.model.base import Context, Prediction, State
from jouleline.model.features import Data
from jouleline.model.fit.configurations import planned_rows
from jouleline.model.frugal import choose
from jouleline.model.table.runs import complete, one_source, take, usable
from jouleline.reduce import runs as tables
from jouleline.schemas.runs import RUNS

JUDGED = 8
"""Runs at the least whose errors, predicted before they were measured, decide whether to go on."""

Document = dict[str, Any]


class Campaign:
    """What is known of a campaign when a round is to be chosen.

    `grid` is grid.json and `folder` the campaign's. `earlier` has the documents of the rounds before. `regions` are the
    rows of the regions table of their runs. `settings` is {frugal, plan, protocol, asks}; asks are those of `choose`,
    given only where the choice is made for them.
    """

    def __init__(
        self,
        grid: Mapping[str, Any],
        folder: Path,
        earlier: Sequence[Document],
        regions: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
        calibration: Mapping[str, Any] | None,
    ):
        self.earlier = earlier
        self.frugal, self.plan = settings["frugal"], settings["plan"]
        self.asks = settings.get("asks", [])
        self.ends = ends(self.frugal, self.plan)
        self.protocol = complete_protocol(settings["protocol"])
        self.context: Context = choose.context(calibration)
        self.entries = {entry["run_id"]: entry for entry in grid["runs"]}
        self.chosen = [run_id for document in earlier for run_id in run_ids(document)]
        measured, _ = tables.collect(
            {**grid, "runs": [self.entries[run_id] for run_id in self.chosen if run_id in self.entries]},
            regions,
            folder / "runs",
            {},
        )
        self.done = plans.finished(folder, self.chosen)
        self.measured = {row["run_id"]: row for row in measured}
        self.runs = _runs(measured)
        self.state: State | None = choose.fitted(self.runs, self.context) if self.runs else None

    def rows(self, run_ids: Sequence[str]) -> Data:
        """The rows that have not run yet, as arrays."""
        rows = [self.entries[run_id]["row"] for run_id in run_ids]
        names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
        raw = {name: np.array([row[name] for row in rows], dtype=object) for name in names}
        return planned_rows(raw, self.devices[:1] or [self.plan["device"] or "device"], "the grid")

    @property
    def devices(self) -> list[str]:
        """The rows of the runs measured so far."""
        return sorted(set(self.runs.columns["device"].tolist())) if self.runs else []

    def targets(self) -> Data | None:
        """What is to be predicted well: the candidates of the asks, or None for the whole grid."""
        if not for_asks(self.frugal):
            return None
        asks = [ask.make(given, f"choose, ask {number}") for number, given in enumerate(self.asks, 1)]
        asked = targets.of_asks(asks, self.devices)
        return None if asked is None else asked.data

    def costs(self, run_ids: Sequence[str], expected: Prediction) -> list[plans.Row]:
        """The plan's line of each run: by the fit, else by the data sheet of `plan.device`, else unknown."""
        listed = [{"run_id": run_id, **self.entries[run_id]["row"]} for run_id in run_ids]
        overhead_s = plans.overhead(self.done)
        if self.state is None:
            return plans.estimate(listed, self.protocol, self.plan, None, overhead_s)
        steps = plans.of_fit("the fit of the rounds before", expected)
        return plans.priced(listed, steps, self.protocol, self.plan, overhead_s)


def _runs(measured: list[dict[str, Any]]) -> Data | None:
    """The usable runs, or None if there are none."""
    if not measured:
        return None
    columns = complete({name: [row.get(name) for row in measured] for name in RUNS.names}, "the runs so far")
    kept = take(columns, usable(columns))
    if not len(kept["run_id"]):
        return None
    one_source(kept)
    return Data.of(kept)


def next_round(campaign: Campaign, before: Document | None) -> Document:
    """The document of the round after the earlier ones. `before` is the same round as it was made before, if it was.

    Raises UserError where the first set cannot identify the model, or exceeds `until`.
    """
    number = len(campaign.earlier) + 1
    document: Document = {"schema": 1, "round": number, "until": campaign.ends, **progress(campaign)}
    document["target"] = "choose" if for_asks(campaign.frugal) else "grid"
    kept = [entry for entry in (before or {"runs": []})["runs"] if entry["run_id"] in campaign.entries]
    if kept:
        return {**document, "stopped": None, "left_out": (before or {}).get("left_out", []), "runs": kept}
    stopped = why_stop(campaign, document)
    if stopped:
        return {**document, "stopped": stopped, "left_out": [], "runs": []}
    offered, left_out = _candidates(campaign)
    document |= {"stopped": None, "left_out": left_out, "runs": []}
    if not offered:
        return {**document, "stopped": "every row of the grid that can be measured is measured"}
    chosen = _first(campaign, offered) if number == 1 else _batch(campaign, offered)
    document["runs"] = _within_budget(campaign, chosen, document["spent"])
    if not document["runs"]:
        if number == 1:
            raise UserError(
                "grid.frugal.until allows less than the first run takes; raise it, or take smaller rows"
            )
        document["stopped"] = "the next run would take more than is left of until"
    return document


def progress(campaign: Campaign) -> Document:
    """What was measured, spent and predicted so far: `spent`, `errors` of every round, `prequential`, `noise`.

    The energy of a job is an estimate: the mean power of its window times its whole time. The window's joules are
    given too.
    """
    walls = {run_id: record["wall_s"] for run_id, record in campaign.done.items()}
    devices = {run_id: row["device_count"] for run_id, row in campaign.measured.items()}
    powers = {run_id: row.get("mean_power_w") for run_id, row in campaign.measured.items()}
    spent = {
        "runs": len(campaign.done),
        "gpu_hours": sum(walls[run_id] * devices[run_id] for run_id in walls if run_id in devices) / 3600,
        "kwh": sum(walls[run_id] * (powers.get(run_id) or 0.0) for run_id in walls) / plans.J_PER_KWH,
    }
    errors = [_errors(campaign, document) for document in campaign.earlier]
    newest: list[float] = []
    for found in reversed(errors):
        if len(newest) >= JUDGED:
            break
        newest += found
    noise = None
    if campaign.state is not None:
        hypers = [one["hyper"] for one in campaign.state["process"]["targets"].values()]
        noise = float(np.hypot(*(np.exp(hyper[1]) for hyper in hypers)))
    return {
        "spent": spent,
        "noise": noise,
        "errors": [float(np.mean(found)) if found else None for found in errors],
        "judged_runs": len(newest),
        "prequential": float(np.mean(newest)) if len(newest) >= JUDGED else None,
    }


def _errors(campaign: Campaign, document: Document) -> list[float]:
    """How far the energies of a round's runs were from their predictions: relative errors, absolute values."""
    if campaign.runs is None:
        return []
    ids = campaign.runs.columns["run_id"].tolist()
    measured = dict(zip(ids, campaign.runs.step_energy_j.tolist(), strict=True))
    predicted = {entry["run_id"]: entry["predicted_step_energy_j"] for entry in document["runs"]}
    return [
        abs(value / measured[run_id] - 1)
        for run_id, value in predicted.items()
        if value is not None and run_id in measured
    ]


def why_stop(campaign: Campaign, known: Document) -> str | None:
    """Why no more runs are to be chosen; None to go on."""
    until, spent = campaign.ends, known["spent"]
    error = until["error"]
    if error is not None and known["prequential"] is not None and known["prequential"] <= error:
        return (
            f"the newest {known['judged_runs']} runs were predicted to {known['prequential']:.1%}, and {error:.1%} "
            "is asked for"
        )
    # The mean size of a normal error with the standard deviation of the noise.
    floor = None if known["noise"] is None else known["noise"] * np.sqrt(2 / np.pi)
    if error is not None and floor is not None and floor > error and known["prequential"] is not None:
        return (
            f"until.error {error:.1%} can never be met: by the fit the noise of a run alone is {floor:.1%}; raise it, "
            "or measure longer"
        )
    for key, unit in (("kwh", "kWh"), ("gpu_hours", "device hours")):
        limit = until[key]
        if limit is not None and spent[key] >= limit:
            return f"{spent[key]:.3g} {unit} are spent, and {limit:g} were allowed"
    if until["rounds"] is not None and len(campaign.earlier) >= until["rounds"]:
        return f"{len(campaign.earlier)} rounds are done"
    return None


def _candidates(campaign: Campaign) -> tuple[list[str], list[dict[str, str]]]:
    """(runs that may be chosen, runs that cannot fit in memory and why). Replicates of a row are in order."""
    chosen = set(campaign.chosen)
    left = sorted((run_id for run_id in campaign.entries if run_id not in chosen), key=_order)
    rows = [{"run_id": run_id, **campaign.entries[run_id]["row"]} for run_id in left]
    large = {
        line["run_id"]: line["memory_note"]
        for line in plans.memory(rows, campaign.protocol, campaign.plan)
        if line["memory"] == plans.TOO_LARGE
    }
    listed = [{"run_id": run_id, "reason": f"cannot fit in memory: {note}"} for run_id, note in large.items()]
    return [run_id for run_id in left if run_id not in large], listed


def _order(run_id: str) -> tuple[int, str]:
    row, _, replicate = run_id.rpartition("-r")
    return int(replicate), row


def _first(campaign: Campaign, offered: list[str]) -> list[Document]:
    rows, count = campaign.rows(offered), campaign.frugal["first"]
    needed = choose.first_needed(rows, campaign.context)
    if count < needed:
        raise UserError(
            f"grid.frugal.first is {count}; to identify the model on these rows it takes at least {needed}"
        )
    if count > len(offered):
        raise UserError(
            f"grid.frugal.first is {count}, and {len(offered)} runs of the grid fit in memory; lower it"
        )
    nothing = rows.take(np.array([], dtype=int))
    expected = choose.expect(rows, None, campaign.context)
    costs = campaign.costs(offered, expected)
    found = choose.measure_next(nothing, rows, expected, plans.joules(costs), count, campaign.context, None)
    return _entries(offered, costs, found)


def _batch(campaign: Campaign, offered: list[str]) -> list[Document]:
    rows = campaign.rows(offered)
    if campaign.runs is None:
        raise UserError(
            "no run of the rounds before is usable, so nothing can be learnt; see their reasons in the log of "
            "check_runs, or run.failed.json"
        )
    expected = choose.expect(rows, campaign.state, campaign.context)
    costs = campaign.costs(offered, expected)
    found = choose.measure_next(
        campaign.runs,
        rows,
        expected,
        plans.joules(costs),
        campaign.frugal["batch"],
        campaign.context,
        campaign.state,
        campaign.targets(),
    )
    return _entries(offered, costs, found)


def _entries(offered: list[str], costs: list[plans.Row], found: list[choose.Suggestion]) -> list[Document]:
    return [
        {
            "run_id": offered[one.candidate],
            "reason": one.reason,
            "expected_error_before": one.error_before,
            "expected_error_after": one.error_after,
            "predicted_step_energy_j": one.step_energy_j,
            "job_kwh": costs[one.candidate]["energy_kwh"],
            "job_gpu_hours": costs[one.candidate]["device_hours"],
        }
        for one in found
    ]


def _within_budget(campaign: Campaign, chosen: list[Document], spent: Mapping[str, float]) -> list[Document]:
    """The first of the chosen runs that `until` has room for, as far as their cost is known."""
    kept: list[Document] = []
    sums = {"kwh": spent["kwh"], "gpu_hours": spent["gpu_hours"]}
    for entry in chosen:
        for key in sums:
            sums[key] += entry[f"job_{key}"] or 0.0
            limit = campaign.ends[key]
            if limit is not None and sums[key] > limit:
                return kept
        kept.append(entry)
    return kept


def lines(document: Document) -> list[str]:
    """A round for a log: what was learnt, what comes next and why."""
    spent = document["spent"]
    found = [f"round {document['round']}: {spent['runs']} runs measured, {spent['kwh']:.3g} kWh spent"]
    if document["prequential"] is not None:
        found.append(
            f"the newest {document['judged_runs']} runs were predicted to {document['prequential']:.1%}"
        )
    if document["stopped"]:
        found.append(f"no more runs: {document['stopped']}")
    found += [f"{entry['run_id']}: {entry['reason']}" for entry in document["runs"]]
    found += [f"left out: {entry['run_id']}: {entry['reason']}" for entry in document["left_out"]]
    return found
