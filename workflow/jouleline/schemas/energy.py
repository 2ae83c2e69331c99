"""The regions table: what a region of a run cost, per device and in total. Also the two raw tables."""

from jouleline.schemas import Column, Table
from jouleline.schemas.samples import MARKERS, SAMPLES

_C = Column

REGIONS = Table(
    "regions",
    "Energy of every marked region: one row per device, and one row with no device_uuid for the run's devices "
    "together. Gross energy: nothing is subtracted and nothing is multiplied in.",
    (
        _C("run_id", "string", "", "Run that was measured"),
        _C("region", "string", "", "Name of the region; null where the run could not be read"),
        _C("ordinal", "int32", "", "Which of the regions with this name, from 0"),
        _C("parent", "string", "", "Name of the region around it"),
        _C("node", "int32", "", "Number of the node; null in the total"),
        _C("host", "string", "", "Host name of the node; null in the total"),
        _C("rank", "int32", "", "Rank paired with the device; null where none is"),
        _C("device_uuid", "string", "", "Identity of the device; null in the total"),
        _C("device_name", "string", "", "Device type as its driver names it"),
        _C(
            "role",
            "string",
            "",
            "job (counted in the total), host (RAPL beside GPUs) or other (on the node, not ours)",
        ),
        _C("start_utc", "string", "", "Start, by the node's wall clock"),
        _C("end_utc", "string", "", "End, by the node's wall clock"),
        _C("time_s", "float64", "s", "Length of the region; of the longest device in the total"),
        _C("steps", "int32", "steps", "Steps marked in the region (rank 0 in the total)"),
        _C("energy_j", "float64", "J", "Gross energy; null where it cannot be known"),
        _C("energy_source", "string", "", "nvml_counter, nvml_power, rapl or estimate"),
        _C("method", "string", "", "tick, difference, average_power or instant_power"),
        _C("energy_edge_u_j", "float64", "J", "Standard uncertainty from the two edges"),
        _C("energy_gap_u_j", "float64", "J", "Standard uncertainty from gaps and bridged faults"),
        _C(
            "energy_gain_u_j",
            "float64",
            "J",
            "Systematic standard uncertainty of the sensor's gain; null: not stated",
        ),
        _C(
            "idle_power_w",
            "float64",
            "W",
            "Power while idle before the run (after it, where before is unknown)",
        ),
        _C("idle_energy_j", "float64", "J", "idle_power_w times time_s"),
        _C("mean_power_w", "float64", "W", "energy_j / time_s"),
        _C(
            "host_energy_j",
            "float64",
            "J",
            "RAPL energy of the nodes beside the GPUs; null where not metered",
        ),
        _C(
            "covered_fraction",
            "float64",
            "",
            "Share of the region with readings no farther apart than allowed",
        ),
        _C("longest_gap_s", "float64", "s", "Longest time between two readings, cut to the region"),
        _C("n_samples", "int64", "", "Good readings inside the region"),
        _C("n_ticks", "int64", "", "Updates of the energy counter seen inside the region"),
        _C("tick_period_s", "float64", "s", "Update period of the energy counter as observed"),
        _C("instant_energy_j", "float64", "J", "Integral of the instant power, for comparison"),
        _C("average_energy_j", "float64", "J", "Integral of the 1 s average power, for comparison"),
        _C(
            "throttle_thermal_fraction",
            "float64",
            "",
            "Share of the time slowed by temperature or power brake",
        ),
        _C("throttle_power_fraction", "float64", "", "Share of the time slowed by the power limit"),
        _C("temperature_start_c", "float64", "degC", "First temperature in the region"),
        _C("temperature_end_c", "float64", "degC", "Last temperature in the region"),
        _C("temperature_max_c", "float64", "degC", "Highest temperature in the region"),
        _C("sm_clock_mhz", "float64", "MHz", "Mean clock of the multiprocessors"),
        _C("verdict", "string", "", "valid, degraded or invalid"),
        _C("reasons", "string", "", "Reason codes, separated by commas"),
    ),
)

TABLES = (SAMPLES, MARKERS, REGIONS)
