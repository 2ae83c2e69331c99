"""The verdict on a region's energy: valid, degraded or invalid, with the reasons as codes.

It depends on the raw files alone. Without proof that a region is right it is not valid, and an invalid region has no
energy (null). A code is a note (the number stands), degrades, or invalidates.
"""

from collections.abc import Iterable

VALID, DEGRADED, INVALID = "valid", "degraded", "invalid"

# Severity and meaning of every reason code.
REASONS: dict[str, tuple[str, str]] = {
    "run_unreadable": (INVALID, "the run's files are missing or torn"),
    "no_regions": (INVALID, "no rank marked a region"),
    "node_missing": (INVALID, "a node left no data"),
    "rank_missing": (INVALID, "fewer ranks marked the region than the run has"),
    "some_ranks": (
        DEGRADED,
        "not all ranks marked the region: its energy is of the devices of those that did",
    ),
    "device_missing": (INVALID, "an expected device was not measured at all"),
    "device_lost": (INVALID, "the device stopped answering before the region ended"),
    "edges_unbracketed": (INVALID, "no reading of the energy before the start or after the end"),
    "not_counting": (INVALID, "the energy counter never moved in the region"),
    "impossible_power": (
        INVALID,
        "the device reports a mean power that none has: below 0.1 W or above 100 kW",
    ),
    "zone_left_out": ("note", "a memory zone does not count: its energy is in no total"),
    "zero_length": (INVALID, "the region has no length"),
    "edge_uncertain": (DEGRADED, "edges and gaps make the energy uncertain by more than 3 %"),
    "edge_too_uncertain": (INVALID, "edges and gaps make the energy uncertain by more than 10 %"),
    "too_few_ticks": (DEGRADED, "fewer than 3 updates of the energy counter in the region"),
    "truncated": (DEGRADED, "the region was never closed; it is counted to the last reading"),
    "gap": (DEGRADED, "readings are missing for longer than allowed"),
    "slow_calls": (DEGRADED, "calls to the driver took longer than 100 ms"),
    "counter_reset": (DEGRADED, "the energy counter was reset; bridged by measured power"),
    "counter_stuck": (DEGRADED, "the energy counter stood still; what it missed is bridged by power"),
    "counter_mismatch": (DEGRADED, "counter and 1 s average power differ by more than 3 % over 10 s or more"),
    "counter_contradicted": (
        INVALID,
        "counter and 1 s average power differ by more than 10 % over 10 s or more",
    ),
    "no_counter": (DEGRADED, "no energy counter could be read: energy is the integral of power"),
    "alias_risk": ("note", "steps line up with the refresh of the instant power: its integral may be wrong"),
    "alias_error": (DEGRADED, "energy is the integral of instant power and may alias with the steps"),
    "throttled": (DEGRADED, "clocks were lowered by temperature or the power brake"),
    "thermal_drift": (DEGRADED, "the temperature changed by more than 15 degC in the region"),
    "limits_changed": (DEGRADED, "the power limit was changed in the region"),
    "foreign_process": (DEGRADED, "processes that are not of this run used the device"),
    "foreign_load": (
        DEGRADED,
        "others used more than a tenth of the machine's CPUs: their energy is in RAPL's",
    ),
    "foreign_cpus": (
        "note",
        "others used more than a tenth of the machine's CPUs: what was measured may have waited for one",
    ),
    "unused_gpu": (
        "note",
        "no process of the command was seen on this GPU, whose energy counts; leave it out by --gpus or "
        "CUDA_VISIBLE_DEVICES",
    ),
    "mig_shared": (DEGRADED, "the rank has a MIG slice; the whole device is measured"),
    "module_scope": (DEGRADED, "only the module's power can be read, not the device's"),
    "wrong_pairing": (INVALID, "a rank ran on a device that is not measured for this run"),
    "clock_step": ("note", "the wall clock was stepped; energy and time are from the monotonic clock"),
    "period_doubled": ("note", "sampling was slowed because it cost too much"),
    "samples_thinned": (DEGRADED, "samples were dropped because the disk was full"),
    "disk_failed": ("note", "samples waited in memory because the disk could not take them"),
    "samples_unreadable": (INVALID, "the samples file is torn"),
    "markers_broken": (DEGRADED, "marks are torn or lost"),
    "rank_twice": (
        DEGRADED,
        "two processes marked as one rank at once and are taken for two; name each rank by RANK",
    ),
    "events_missing": (DEGRADED, "the event log is gone: what it would have said is unknown"),
    "sidecar_died": ("note", "the sidecar did not end as it should"),
    "call_failed": ("note", "a call to the driver failed in the region"),
    "host_uncertain": ("note", "the host's energy is degraded, or null because it is invalid: see its row"),
    "unchecked_average": ("note", "no average power to check the counter against"),
    "unchecked_state": ("note", "temperature, clocks or throttling could not be read"),
    "unchecked_processes": ("note", "the processes on the device could not be read"),
}

# The limits behind the codes.
EDGE_DEGRADED, EDGE_INVALID = 0.03, 0.10
COUNTER_DEGRADED, COUNTER_INVALID, COUNTER_WINDOW_S = 0.03, 0.10, 60.0
FEWEST_TICKS = 3
# RAPL counts every millisecond, so a longer region has an energy.
COUNTING_S = 0.1
SLOW_CALL_S = 0.1
THERMAL_DRIFT_C = 15.0
THROTTLED_SHARE = 0.001
ALIAS_SHARE = 0.05


def decide(reasons: Iterable[str]) -> tuple[str, str]:
    """(verdict, reasons as one string in the order of the table above). An unknown code raises KeyError."""
    codes = set(reasons)
    severities = {REASONS[code][0] for code in codes}
    verdict = next((level for level in (INVALID, DEGRADED) if level in severities), VALID)
    return verdict, ",".join(code for code in REASONS if code in codes)
