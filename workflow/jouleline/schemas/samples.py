"""The raw tables of a measurement: samples of the meters and marks of the ranks.

They are separate from the results (`energy`), so that a new result column does not change the measuring code. Times
are CLOCK_MONOTONIC of their node: they can be compared inside a node, never between nodes.
"""

from jouleline.schemas import Column, Table

_C = Column

SAMPLES = Table(
    "samples",
    "What the meters said: one row per device and reading. Null is unknown, never 0.",
    (
        _C("node", "int32", "", "Number of the node in the run, from 0"),
        _C("device", "int32", "", "Index in the devices of the node's meta"),
        _C("lane", "int32", "", "0 fast lane (energy, power), 1 slow lane (state, once a second)"),
        _C("t_us", "int64", "us", "CLOCK_MONOTONIC just before the call"),
        _C("call_us", "int32", "us", "Time that the call took"),
        _C("late_us", "int32", "us", "How late the call began after its deadline"),
        _C("status", "int32", "", "Return code of the call that reads energy and power; 0 is success"),
        _C(
            "energy_mj", "int64", "mJ", "Energy counter (NVML total energy since driver load; RAPL unwrapped)"
        ),
        _C("power_mw", "int32", "mW", "Instant power (NVML field 186)"),
        _C("power_average_mw", "int32", "mW", "Power averaged by the device over 1 s (NVML field 185)"),
        _C("power_module_mw", "int32", "mW", "Power of the module, where the device is one (NVML scope 1)"),
        _C("power_memory_mw", "int32", "mW", "Power of the memory (NVML scope 2)"),
        _C("power_limit_mw", "int32", "mW", "Enforced power limit"),
        _C("sm_clock_mhz", "int32", "MHz", "Clock of the multiprocessors"),
        _C("memory_clock_mhz", "int32", "MHz", "Clock of the memory"),
        _C("temperature_c", "int32", "degC", "Temperature of the chip"),
        _C("throttle_mask", "int64", "", "Reasons for lower clocks, a bit mask (nvmlClocksEventReasons)"),
        _C("throttle_power_ns", "int64", "ns", "Time with clocks lowered by the power limit (field 74)"),
        _C("throttle_sync_boost_ns", "int64", "ns", "Time with clocks lowered by a slower peer (field 76)"),
        _C("throttle_sw_thermal_ns", "int64", "ns", "Time slowed by software for temperature (field 269)"),
        _C("throttle_hw_thermal_ns", "int64", "ns", "Time slowed by hardware for temperature (field 270)"),
        _C("throttle_power_brake_ns", "int64", "ns", "Time with the power brake on (field 271)"),
        _C("utilization_gpu", "int32", "%", "Share of the time with a kernel running"),
        _C("utilization_memory", "int32", "%", "Share of the time with the memory busy"),
        _C("memory_used_byte", "int64", "B", "Device memory in use"),
        _C("foreign_processes", "int32", "", "Processes on the device that are not of this run"),
    ),
)

MARKERS = Table(
    "markers",
    "What the ranks said: one row per mark, in the order written.",
    (
        _C("node", "int32", "", "Number of the node in the run, from 0"),
        _C("rank", "int32", "", "Rank of the process that wrote the mark"),
        _C("seq", "int64", "", "Number of the mark in its file, from 0; a gap is a lost mark"),
        _C("kind", "int32", "", "1 region start, 2 region end, 3 step, 4 device of the rank"),
        _C("t_ns", "int64", "ns", "CLOCK_MONOTONIC; steps on a GPU are placed by its own events"),
        _C("id", "int64", "", "Region id (start, end), step number, or process id (device)"),
        _C("parent", "int64", "", "Id of the region around it; 0 is none"),
        _C("name", "string", "", "Region name, or the device's UUID"),
    ),
)
