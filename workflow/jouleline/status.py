"""How far a campaign is: rows done, running, queued and failed, joules and ETA. It only reads.

It reads the campaign's folder, and on Slurm it calls squeue once. What cannot be read is unknown.
"""

import base64
import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from jouleline.campaign import frugal
from jouleline.campaign.protocol import measured_so
from jouleline.errors import UserError
from jouleline.files import read_json
from jouleline.measure.raw import markers
from jouleline.slurm.ask import ask

FRESH_S = 60.0
"""A run whose raw files nobody has written to for so long is no longer running."""

_HEAD_BYTES = 8192
_FACTS = {
    name: re.compile(rb'\n "%s": "?([\w.]+)' % name.encode()) for name in ("status", "wall_s", "code_digest")
}
_PROTOCOL = re.compile(rb'\n "protocol": (\{.*?\n \})', re.S)


@dataclass(frozen=True)
class Today:
    """What a run must be measured by to count today: digest of the measuring code, complete protocol, its key."""

    code_digest: str
    protocol: Mapping[str, Any]
    protocol_key: str


@dataclass
class Status:
    """The state of a campaign's rows. `running`, `queued`, `failed`: (run id, what is known of it).

    `again` were measured by other code or another protocol than today's, and will be measured again.
    """

    campaign: str
    rows: int
    done: Counter = field(default_factory=Counter)
    running: list[tuple[str, str]] = field(default_factory=list)
    queued: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    energy_j: float | None = None
    measured: int = 0

    @property
    def waiting(self) -> int:
        """Rows that nobody has started and that are not in a queue."""
        begun = (self.running, self.queued, self.failed, self.again)
        return self.rows - sum(self.done.values()) - sum(map(len, begun))

    @property
    def eta_s(self) -> float | None:
        """The time left, at the mean time of a finished row and as many rows at once as now. None before the first."""
        left = self.waiting + len(self.queued) + len(self.running) + len(self.again)
        return mean(self.wall_s) * left / max(len(self.running), 1) if self.wall_s else None


def read(results: Path, campaign: str, today: Today | None = None) -> Status:
    """The status of `results`/`campaign`. Without `today` every record counts as measured.

    Raises UserError where there is no such campaign.
    """
    folder = results / campaign
    if not os.path.lexists(folder / "grid.json"):
        known = ", ".join(sorted(path.parent.name for path in results.glob("*/grid.json"))) or "none"
        raise UserError(
            f"there is no campaign {campaign!r} in {results} (its grid.json is missing); known are {known}"
        )
    run_ids = _asked_for(folder)
    status, jobs = Status(campaign, len(run_ids)), _slurm_jobs()
    good = _Good(today)
    for run_id in run_ids:
        _add(status, folder, run_id, jobs.get(run_id), good)
    status.energy_j, status.measured = _energy(folder)
    return status


def _asked_for(folder: Path) -> list[str]:
    """The runs of the grid. Where the campaign chooses its rows: the runs chosen so far."""
    whole = [run["run_id"] for run in read_json(folder / "grid.json")["runs"]]
    chosen = {run_id for document in frugal.documents(folder) for run_id in frugal.run_ids(document)}
    # Other runs were measured: the campaign chooses no more from the grid, or did not do so before.
    begun = any(run_id not in chosen and (folder / "runs" / run_id).exists() for run_id in whole)
    return whole if begun or not chosen else [run_id for run_id in whole if run_id in chosen]


class _Good:
    """Which records are of today's code and protocol, or were accepted as such by `snakemake --touch`."""

    def __init__(self, today: Today | None):
        self.today, self._same = today, {}

    def __call__(self, record: Path, facts: Mapping[str, str]) -> bool:
        if self.today is None or not {"code_digest", "protocol"} <= facts.keys():
            return True
        by = (facts["code_digest"], facts["protocol"])
        if by not in self._same:  # of ten thousand records a few differ
            known = {"code_digest": by[0], "protocol": json.loads(by[1])}
            self._same[by] = measured_so(known, self.today.code_digest, self.today.protocol)
        return self._same[by] or self._accepted(record)

    def _accepted(self, record: Path) -> bool:
        """Whether Snakemake has recorded today's parameters for a record, as it does for every output."""
        name = base64.urlsafe_b64encode(str(record).encode()).decode()
        try:
            params = "".join(read_json(Path(".snakemake/metadata", name))["params"])
        except (UserError, KeyError, TypeError):
            return False
        return self.today.code_digest in params and self.today.protocol_key in params


def _add(status: Status, folder: Path, run_id: str, job: tuple[str, str] | None, good: _Good) -> None:
    run, state = folder / "runs" / run_id, job[0] if job else ""
    there = _names(run)  # one listing instead of a look at each file: there may be ten thousand rows
    began = _written(run / "raw") if "raw" in there else None
    if state == "RUNNING" or (began is not None and time.time() - began < FRESH_S):
        status.running.append((run_id, _steps(run)))
    elif state in ("", "COMPLETING") and "run.json" in there and (facts := _facts(run / "run.json")):
        status.wall_s += [float(facts["wall_s"])] if "wall_s" in facts else []
        if good(run / "run.json", facts):
            status.done[facts["status"]] += 1
        else:
            status.again.append(run_id)
    elif state:
        status.queued.append((run_id, job[1]))
    elif "run.failed.json" in there:
        status.failed.append((run_id, _why(folder, run_id)))
    elif began is not None:
        status.stopped.append(run_id)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _facts(path: Path) -> dict[str, str]:
    """What the head of a run's record says. Ten thousand records are too much to read whole."""
    try:
        with open(path, "rb", buffering=0) as record:
            head = record.read(_HEAD_BYTES)
    except FileNotFoundError:  # it is being measured again
        return {}
    found = {name: match.group(1).decode() for name, fact in _FACTS.items() if (match := fact.search(head))}
    protocol = _PROTOCOL.search(head)
    return {"status": "unknown"} | found | ({"protocol": protocol.group(1).decode()} if protocol else {})


def _written(raw: Path) -> float | None:
    """When a run's raw files were last written; None where there are none."""
    try:
        entries = [raw, *raw.glob("*"), *raw.glob("node-*/*"), *raw.glob("node-*/markers/*")]
        return max(entry.stat().st_mtime for entry in entries)
    except OSError:  # not started, or being merged
        return None


def _steps(run: Path) -> str:
    """The number of steps that rank 0 has marked so far. The fourth byte of a mark is its kind."""
    try:
        marks = next(iter(sorted((run / "raw").glob("node-0/markers/rank-0*.bin")))).read_bytes()
    except (OSError, StopIteration):
        return "no step yet"
    return f"step {marks[3 :: markers.RECORD_BYTES].count(markers.STEP)}"


def _why(folder: Path, run_id: str) -> str:
    """Why a run failed, as it says itself, and the last line of its log."""
    reason = str(
        read_json(folder / "runs" / run_id / "run.failed.json").get("reason") or "no reason was recorded"
    )
    logs = sorted(folder.glob(f"logs/measure_run*/{run_id}.log"))
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").split("\n") if logs else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{reason}; log: {last} ({logs[-1]})" if last and last not in reason else reason


def _slurm_jobs() -> dict[str, tuple[str, str]]:
    """run id -> (state, why it waits and until when) of the jobs from this folder. Empty without Slurm."""
    found: dict[str, tuple[str, str]] = {}
    here = str(Path.cwd().resolve())
    listed = (
        ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%T|%r|%S|%Z|%j", timeout_s=5) or ""
    )
    for line in listed.splitlines():
        state, reason, start, folder, name = (line.split("|", 4) + [""] * 5)[:5]
        if folder and str(Path(folder).resolve()) == here:
            when = "" if start in ("N/A", "") else f", expected {start}"
            found[name.rpartition(".")[0]] = (state, f"{reason}{when}")
    return found


def _energy(folder: Path) -> tuple[float | None, int]:
    """Joules of the measured windows whose energy is known already, and the number of these windows."""
    shards = sorted(folder.glob("energy/shard-*.parquet"))
    if not shards:
        return None, 0
    from pyarrow import parquet

    total, count = 0.0, 0
    for shard in shards:
        table = parquet.read_table(shard, columns=["region", "device_uuid", "energy_j"]).to_pydict()
        rows = zip(table["region"], table["device_uuid"], table["energy_j"], strict=True)
        known = [
            energy
            for region, device, energy in rows
            if region == "window" and not device and energy is not None
        ]
        total, count = total + sum(known), count + len(known)
    return (total if count else None), count


def lines(status: Status, plan: dict[str, Any] | None = None, most: int = 10) -> list[str]:
    """The status for a terminal. `plan` gives price_per_kwh, currency and pue, for the cost of the joules so far."""
    counts = ", ".join(f"{number} {word}" for word, number in sorted(status.done.items()))
    head = f"campaign {status.campaign}: {sum(status.done.values())} of {status.rows} rows are measured"
    parts = [head + (f" ({counts})" if counts else "")]
    parts += [
        f"{len(rows)} {word}"
        for word, rows in (("running", status.running), ("queued", status.queued), ("failed", status.failed))
        if rows
    ]
    parts += [f"{status.waiting} not begun"] if status.waiting else []
    shown = [", ".join(parts), _spent(status, plan or {})]
    for word, rows in (("running", status.running), ("queued", status.queued), ("failed", status.failed)):
        shown += [f"  {word:<8} {run_id}  {what}" for run_id, what in rows[:most]]
        shown += [f"  ... and {len(rows) - most} more {word}"] if len(rows) > most else []
    if status.again:
        what = f"{len(status.again)} to measure again, by other code or settings than those of now"
        shown.append(f"  {what} ({status.again[0]}, ...); `snakemake --touch` accepts them")
    if status.stopped:
        shown.append(
            f"  {len(status.stopped)} rows were begun and left; the same command measures them again"
        )
    return [line for line in shown if line]


def _spent(status: Status, plan: dict[str, Any]) -> str:
    parts = []
    if status.energy_j is not None:
        parts.append(f"{status.energy_j / 1000:.4g} kJ in the windows of {status.measured} rows")
        if plan.get("price_per_kwh") is not None:
            cost = status.energy_j / 3.6e6 * plan["pue"] * plan["price_per_kwh"]
            parts.append(f"{cost:.3g} {plan['currency']}")
    if status.eta_s is not None and status.eta_s > 0:
        minutes = status.eta_s / 60
        left = (
            f"{status.eta_s:.0f} s"
            if minutes < 2
            else f"{minutes:.0f} min"
            if minutes < 120
            else f"{minutes / 60:.1f} h"
        )
        parts.append(f"about {left} left")
    return ", ".join(parts)
