"""Checks of every run: what was expected, what was found, and how severe a difference is."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jouleline import architecture
from jouleline.files import canonical_json

# Replicates that differ by more than this share of their mean are reported.
REPLICATE_CV = 0.05
# A busy machine may take a process off its processor between a mark and the clock reading beside it.
BETWEEN_STATEMENTS_S = 0.1
# Share of the window that the readings must cover.
COVERED = 0.99

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Result of one check. `passed` is None where it could not be decided."""

    name: str
    passed: bool | None
    severity: str
    message: str
    details: dict[str, Any]


def check_runs(runs: list[Row], regions: Iterable[Row], protocol: Row) -> list[dict[str, Any]]:
    """Rows of the checks table for every run of the runs table."""
    totals = {r["run_id"]: r for r in regions if r["region"] == "window" and r["device_uuid"] is None}
    finished = [run for run in runs if run["status"] == "ok"]
    # Worked out for all runs at once, because one by one it takes most of the time.
    flop = architecture.proxies(finished)["compute_flop"] if finished else []
    step_flop = {run["run_id"]: float(value) for run, value in zip(finished, flop)}
    rows = []
    for run in runs:
        findings = [_completed(run)]
        if run["status"] == "ok":
            window = totals.get(run["run_id"], {})
            measured = {**run, "step_flop": step_flop[run["run_id"]]}
            findings += [check(measured, window, protocol) for check in _OF_A_FINISHED_RUN]
        rows += [_as_row(run["run_id"], finding) for finding in findings]
    return rows


def excluded(checks: Iterable[Row]) -> dict[str, str]:
    """{run_id: reason} of the runs that no fit may use, because a check of severity error failed."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for check in checks:
        if check["severity"] == "error" and check["passed"] is False:
            reasons[check["run_id"]].append(f"{check['name']}: {check['message']}")
    return {run_id: "; ".join(found) for run_id, found in reasons.items()}


def _as_row(run_id: str, finding: Finding) -> dict[str, Any]:
    return {"run_id": run_id, **finding.__dict__, "details": canonical_json(finding.details)}


def _completed(run: Row) -> Finding:
    messages = {
        "ok": "the run finished",
        "oom": "the configuration does not fit into the device's memory",
        "failed": f"the run failed: {run['reasons']}",
    }
    return Finding(
        "completed", run["status"] == "ok", "error", messages[run["status"]], {"status": run["status"]}
    )


def _energy_known(run: Row, window: Row, protocol: Row) -> Finding:
    passed = run["energy_j"] is not None and run["energy_j"] > 0 and run["verdict"] != "invalid"
    reasons = f" ({run['reasons']})" if run["reasons"] else ""
    message = f"the measurement is {run['verdict']}{reasons}"
    return Finding(
        "energy_known", passed, "error", message, {"energy_j": run["energy_j"], "verdict": run["verdict"]}
    )


def _energy_undegraded(run: Row, window: Row, protocol: Row) -> Finding:
    message = (
        "nothing degrades the measurement" if run["verdict"] == "valid" else f"degraded by: {run['reasons']}"
    )
    return Finding(
        "energy_undegraded", run["verdict"] == "valid", "warning", message, {"reasons": run["reasons"]}
    )


def _energy_measured(run: Row, window: Row, protocol: Row) -> Finding:
    source = run["energy_source"]
    passed = None if source is None else source != "estimate"
    message = f"the energy comes from {source}" + (", it is not measured" if source == "estimate" else "")
    return Finding("energy_measured", passed, "warning", message, {"energy_source": source})


def _window_long_enough(run: Row, window: Row, protocol: Row) -> Finding:
    least_s, least_steps = protocol["window_s"], protocol["window_steps"]
    if run["time_s"] is None or run["steps"] is None:
        return Finding("window_long_enough", False, "error", "the run recorded no measured window", {})
    # The number of steps is fixed at the window's start, by the pace of the warm-up. A tenth of it is tolerated.
    passed = run["steps"] >= least_steps and run["time_s"] >= 0.9 * least_s
    message = (
        f"{run['steps']} steps in {run['time_s']:.2f} s; the protocol asks for {least_steps} in {least_s} s"
    )
    return Finding(
        "window_long_enough", passed, "warning", message, {"steps": run["steps"], "time_s": run["time_s"]}
    )


def _window_covered(run: Row, window: Row, protocol: Row) -> Finding:
    covered = window.get("covered_fraction")
    if covered is None:
        return Finding("window_covered", None, "warning", "the coverage of the window is not known", {})
    message = f"readings cover {covered:.1%} of the window, longest gap {window['longest_gap_s']} s"
    return Finding("window_covered", covered >= COVERED, "warning", message, {"covered_fraction": covered})


def _edges_small(run: Row, window: Row, protocol: Row) -> Finding:
    target = protocol.get("edge_target_rel") or 0.02
    if not run["energy_j"] or run["energy_edge_u_j"] is None:
        return Finding("edges_small", None, "warning", "the edge uncertainty is not known", {})
    share = run["energy_edge_u_j"] / run["energy_j"]
    message = f"edges and gaps leave {share:.2%} of uncertainty; the aim is {target:.2%}"
    return Finding("edges_small", share <= target, "warning", message, {"relative_u": share})


def _clocks_agree(run: Row, window: Row, protocol: Row) -> Finding:
    """The trainer's clock and the markers must give the same window, except for the time between two statements."""
    marked = window.get("time_s")
    if marked is None or not run["time_s"]:
        return Finding("clocks_agree", None, "error", "the window's length is known from one clock only", {})
    difference = abs(marked / run["time_s"] - 1)
    message = f"window {marked:.3f} s by its markers, {run['time_s']:.3f} s by the trainer"
    agree = difference <= 0.02 or abs(marked - run["time_s"]) <= BETWEEN_STATEMENTS_S
    return Finding("clocks_agree", agree, "error", message, {"relative_difference": difference})


def _work_as_asked(run: Row, window: Row, protocol: Row) -> Finding:
    per_step = run["micro_batch"] * run["grad_accum"] * run["data_parallel"]
    expected = per_step * (run["steps"] or 0)
    passed = run["samples"] == expected and run["tokens"] == expected * run["seq_len"]
    message = f"{run['samples']} sequences of {run['seq_len']} tokens; {per_step} a step were asked for"
    return Finding(
        "work_as_asked", passed, "error", message, {"expected": expected, "samples": run["samples"]}
    )


def _loss_finite(run: Row, window: Row, protocol: Row) -> Finding:
    known = [run["loss_first"], run["loss_last"]]
    passed = all(loss is not None and math.isfinite(loss) for loss in known)
    return Finding("loss_finite", passed, "error", f"training loss from {known[0]} to {known[1]}", {})


def _power_plausible(run: Row, window: Row, protocol: Row) -> Finding:
    power, idle = run["mean_power_w"], run["idle_power_w"]
    if power is None or idle is None:
        return Finding("power_above_idle", None, "warning", "mean or idle power is not known", {})
    message = f"mean power {power:.1f} W, idle {idle:.1f} W"
    return Finding("power_above_idle", power >= 0.98 * idle, "warning", message, {"mean_power_w": power})


def _compute_plausible(run: Row, window: Row, protocol: Row) -> Finding:
    """A device faster than any that exists means that the work was not done, or the time is wrong."""
    rate = run["step_flop"] * run["steps"] / run["time_s"] if run["time_s"] else math.inf
    message = f"{rate:.3g} FLOP/s per device"
    return Finding(
        "compute_plausible", rate < 2e16, "error", message, {"flop_per_s": rate if run["time_s"] else None}
    )


def _slurm_agrees(run: Row, window: Row, protocol: Row) -> Finding:
    """Slurm counts whole nodes. So its energy may be larger than that of the devices, but not smaller."""
    theirs, ours = run["slurm_energy_j"], run["energy_j"]
    if theirs is None or ours is None:
        return Finding("slurm_agrees", None, "info", "Slurm has no energy figure for this run", {})
    message = f"Slurm counts {theirs:.1f} J for the step, the devices' window {ours:.1f} J"
    return Finding("slurm_agrees", theirs >= 0.95 * ours, "warning", message, {"slurm_energy_j": theirs})


def _warmup_steady(run: Row, window: Row, protocol: Row) -> Finding:
    drift, limit = run["warmup_drift_rel"], protocol["steady_rel"]
    if drift is None:
        message = "the warm-up was too short to say whether the step time was steady"
        return Finding("warmup_steady", False, "warning", message, {"drift_rel": None})
    message = f"the step time still changed by {drift:.1%} when the warm-up ended; steady is {limit:.1%}"
    return Finding("warmup_steady", drift <= limit, "warning", message, {"drift_rel": drift})


def _started_cool(run: Row, window: Row, protocol: Row) -> Finding:
    start, limit = run["start_temperature_c"], protocol["start_temperature_c"]
    if start is None or limit is None:
        return Finding(
            "started_cool", None, "info", "no start temperature was asked for, or none is known", {}
        )
    message = f"the hottest device had {start:.1f} °C when the run began, start_temperature_c is {limit:g}"
    return Finding("started_cool", start <= limit, "warning", message, {"temperature_c": start})


def _cpus_as_given(run: Row, window: Row, protocol: Row) -> Finding:
    lost = run["cpus_lost"]
    if lost is None:
        return Finding("cpus_as_given", None, "warning", "the CPUs of the ranks are not known", {})
    message = (
        f"a rank could not use {lost} of its job's CPUs" if lost else "the ranks had the CPUs of their job"
    )
    return Finding("cpus_as_given", lost == 0, "warning", message, {"cpus_lost": lost})


def _settings_as_usual(run: Row, window: Row, protocol: Row) -> Finding:
    slow = run["slow_settings"]
    if slow is None:
        return Finding("settings_as_usual", None, "warning", "the environment is not known", {})
    message = f"slowed down by {slow}; unset it and measure again" if slow else "no debugging switch was set"
    return Finding("settings_as_usual", not slow, "warning", message, {"slow_settings": slow})


def _replicates_agree(run: Row, window: Row, protocol: Row) -> Finding:
    count, spread = run["replicates"], run["energy_cv"]
    if spread is None:
        return Finding("replicates_agree", None, "info", "the configuration was measured once", {"n": count})
    message = f"energy per token varies by {spread:.1%} over {count} replicates"
    return Finding("replicates_agree", spread <= REPLICATE_CV, "warning", message, {"cv": spread, "n": count})


_OF_A_FINISHED_RUN: tuple[Callable[[Row, Row, Row], Finding], ...] = (
    _energy_known,
    _energy_undegraded,
    _energy_measured,
    _window_long_enough,
    _window_covered,
    _edges_small,
    _clocks_agree,
    _work_as_asked,
    _loss_finite,
    _power_plausible,
    _compute_plausible,
    _slurm_agrees,
    _warmup_steady,
    _started_cool,
    _cpus_as_given,
    _settings_as_usual,
    _replicates_agree,
)
