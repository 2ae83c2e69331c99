"""What ran, what failed and why. Every run is listed, whatever happened to it."""

from collections import Counter

from jouleline.report import labels
from jouleline.report.blocks import Cell, Section, Table, Text, columns
from jouleline.report.inputs import Inputs, Row
from jouleline.report.numbers import count, known, number, percent, text, with_uncertainty

_TONES = {"ok": "good", "valid": "good", "degraded": "warn", "oom": "warn", "invalid": "bad", "failed": "bad"}
_SEVERITIES = ("error", "warning", "info")


def build(inputs: Inputs, stamp: str) -> Section:
    """Outcomes, reasons, checks, and the table of all runs."""
    runs = all_runs(inputs)
    if not runs:
        return Section("runs", "Runs", [Text("The campaign has no runs.", "warn")])
    blocks = [
        _outcomes(runs),
        _left_out(inputs, runs),
        _checks(inputs),
        _failed_checks(inputs),
        _table(runs, stamp),
        _shapes(runs),
    ]
    return Section("runs", "Runs", [block for block in blocks if block])


def all_runs(inputs: Inputs) -> list[Row]:
    """The runs table, then the runs that left only a record (a failed run is not in the table)."""
    listed = {run["run_id"] for run in inputs.runs}
    only_records = [
        _from_record(run_id, record) for run_id, record in inputs.records.items() if run_id not in listed
    ]
    return [*inputs.runs, *only_records]


def _from_record(run_id: str, record: Row) -> Row:
    row = record.get("row") or {}
    devices = (row.get("nodes") or 1) * (row.get("gpus_per_node") or 1)
    facts = {
        "device_count": devices,
        "run_id": run_id,
        "status": record.get("status"),
        "reasons": record.get("reason"),
    }
    return {**row, **facts, "verdict": "invalid"}


def reason(inputs: Inputs, run: Row) -> str:
    """Why a run failed or was not fitted: reason codes of the table, and the words of its record."""
    parts = [str(run.get("reasons") or "")]
    record = inputs.records.get(run["run_id"], {})
    parts.append(str(record.get("reason") or ""))
    parts += [
        str(check.get("message") or check.get("name"))
        for check in inputs.checks
        if (check.get("run_id"), check.get("passed"), check.get("severity"))
        == (run["run_id"], False, "error")
    ]
    for split in inputs.splits:
        parts += [
            str(e.get("reason") or "")
            for e in split.get("excluded") or []
            if e.get("run_id") == run["run_id"]
        ]
    seen = list(dict.fromkeys(part for part in parts if part))
    return "; ".join(seen) or "no reason was recorded"


def _outcomes(runs: list[Row]) -> Table:
    counts = Counter((str(run.get("status")), str(run.get("verdict"))) for run in runs)
    rows = [
        [
            _toned(status),
            _toned(verdict),
            count(n),
            "yes" if status == "ok" and verdict != "invalid" else "no",
        ]
        for (status, verdict), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return Table(
        f"Outcomes of all runs ({len(runs)})", columns("Status", "Verdict", "#Runs", "May enter a fit"), rows
    )


def _toned(word: str) -> Cell:
    return Cell(word, _TONES.get(word, ""))


def _left_out(inputs: Inputs, runs: list[Row]) -> Table | Text:
    excluded = {e.get("run_id") for split in inputs.splits for e in split.get("excluded") or []}
    out = [
        r for r in runs if r.get("status") != "ok" or r.get("verdict") == "invalid" or r["run_id"] in excluded
    ]
    if not out:
        return Text("Every run finished and was fit for use; none was left out of a fit.", "note")
    rows = [
        [
            Cell(r["run_id"]),
            labels.short(r),
            _toned(str(r.get("status"))),
            _toned(str(r.get("verdict"))),
            reason(inputs, r),
        ]
        for r in out
    ]
    heads = columns("Run", "Configuration", "Status", "Verdict", "Reason")
    return Table(f"Runs that failed or were left out of a fit ({len(rows)})", heads, rows)


def _checks(inputs: Inputs) -> Table | None:
    if not inputs.checks:
        return None
    names: dict[str, list[Row]] = {}
    for check in inputs.checks:
        names.setdefault(str(check.get("name")), []).append(check)
    rows = []
    for name, group in sorted(names.items()):
        tally = Counter(check.get("passed") for check in group)
        severity = min((str(c.get("severity")) for c in group), key=_severity)
        failed = Cell(count(tally[False]), "bad" if severity == "error" else "warn") if tally[False] else "0"
        rows.append([Cell(name.replace("_", " ")), severity, count(tally[True]), failed, count(tally[None])])
    return Table(
        "Checks, over all runs", columns("Expectation", "Severity", "#Passed", "#Failed", "#Undecided"), rows
    )


def _severity(name: str) -> int:
    return _SEVERITIES.index(name) if name in _SEVERITIES else len(_SEVERITIES)


def _failed_checks(inputs: Inputs) -> Table | None:
    """Failed checks, the worst first. Runs with the same message share a line."""
    groups: dict[tuple, list[str]] = {}
    for check in inputs.checks:
        if check.get("passed") is False:
            severity, name = str(check.get("severity")), str(check.get("name"))
            key = (_severity(severity), severity, name.replace("_", " "), text(check.get("message")))
            groups.setdefault(key, []).append(str(check.get("run_id")))
    if not groups:
        return None
    tones = {"error": "bad", "warning": "warn"}
    total = len({check.get("run_id") for check in inputs.checks})
    rows = [
        [
            name,
            Cell(severity, tones.get(severity, "")),
            message,
            count(len(runs)),
            _names(sorted(runs), total),
        ]
        for (_, severity, name, message), runs in sorted(groups.items())
    ]
    heads = columns("Expectation", "Severity", "What was expected and found", "#Runs", "Which")
    return Table(f"Checks that failed ({sum(map(len, groups.values()))})", heads, rows, folded=len(rows) > 10)


def _names(runs: list[str], total: int) -> str:
    return "all" if len(runs) == total > 1 else ", ".join(runs)


def _table(runs: list[Row], stamp: str) -> Table:
    heads = columns(
        *(
            "Run",
            "Outcome",
            "#Time (s)",
            "#Energy (J)",
            "Source",
            "#Power (W)",
            "#Tokens/s",
            "#mJ/token",
            "Reasons",
        )
    )
    note = (
        "Time and energy are those of the measured window, over all devices; energy is gross, ± the standard "
        "uncertainty of the window's edges where that is known."
    )
    return Table(
        f"All runs ({len(runs)})",
        heads,
        [_row(run) for run in runs],
        folded=True,
        dense=True,
        note=note,
        stamp=stamp,
    )


def _row(run: Row) -> list[Cell | str]:
    status, verdict = str(run.get("status")), str(run.get("verdict"))
    energy_j = run.get("energy_j")
    return [
        run["run_id"],
        _toned(verdict if status == "ok" else status),
        number(run.get("time_s"), 4),
        # Nobody knows the error of an estimate, so its sharp edges would mislead.
        with_uncertainty(
            energy_j, None if run.get("energy_source") == "estimate" else run.get("energy_edge_u_j")
        ),
        text(run.get("energy_source") if known(energy_j) else None),
        number(run.get("mean_power_w")),
        number(_ratio(run.get("tokens"), run.get("time_s")), 4),
        number(_ratio(energy_j, run.get("tokens"), 1e3)),
        text(run.get("reasons")),
    ]


_SHAPE = ("device_count", "layers", "hidden", "heads", "intermediate", "seq_len", "micro_batch")


def _shapes(runs: list[Row]) -> Table:
    """What was trained, and whether it learned. Apart from its cost, so that no table is wider than a screen."""
    heads = columns(
        *("Run", "Strategy", "#N", "#L", "#d", "#h", "#ff", "#S", "#B", "Precision", "#Steps"),
        *("#First loss", "#Last loss", "#Accuracy"),
    )
    note = (
        "N devices, L layers, d hidden width, h heads, ff feed-forward width, S padded sequence length, B sequences "
        "per device; steps are those of the measured window."
    )
    rows = [
        [
            run["run_id"],
            labels.strategy(run).name,
            *(count(run.get(key)) for key in _SHAPE),
            text(run.get("precision")),
            count(run.get("steps")),
            *(number(run.get(key)) for key in ("loss_first", "loss_last")),
            percent(run.get("accuracy")),
        ]
        for run in runs
    ]
    return Table(f"What every run trained ({len(runs)})", heads, rows, folded=True, dense=True, note=note)


def _ratio(top: float | None, bottom: float | None, scale: float = 1.0) -> float | None:
    return scale * top / bottom if known(top) and known(bottom) and bottom else None
