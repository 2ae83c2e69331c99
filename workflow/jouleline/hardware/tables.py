"""The raw tables of the hardware check."""

from jouleline.schemas import Column, Table

SUPPORT = Table(
    "support",
    "Which of the sidecar's NVML calls and fields this driver answers.",
    (
        Column("call", "string", "", "Function with its arguments, or field and scope", required=True),
        Column("code", "int32", "", "NVML return code; 0 is supported", required=True),
        Column("text", "string", "", "What the code means"),
    ),
)

LATENCIES = Table(
    "latencies",
    "How long each call takes, one row per call.",
    (
        Column("state", "string", "", "idle or loaded", required=True),
        Column("call", "string", "", "As in the table support", required=True),
        Column("call_us", "float32", "us", "Time of the call, its Python included", required=True),
    ),
)

READINGS = Table(
    "readings",
    "Energy counter and power under each load, polled as fast as makes sense.",
    (
        Column("phase", "string", "", "Load, as in the table loads", required=True),
        Column("t_ns", "int64", "ns", "Begin of the call, CLOCK_MONOTONIC", required=True),
        Column("call_us", "float32", "us", "Time of the call", required=True),
        Column("energy_mj", "int64", "mJ", "Energy counter (field 83)"),
        Column("instant_mw", "int32", "mW", "Instant power (field 186)"),
        Column("average_mw", "int32", "mW", "Average power (field 185)"),
    ),
)

LOADS = Table(
    "loads",
    "The loads, in order.",
    (
        Column(
            "phase", "string", "", "bare_idle, context_idle, constant, slow_square, square_*, active_wait"
        ),
        Column("period_s", "float64", "s", "Period of a square wave; null of others"),
        Column("start_ns", "int64", "ns", "Begin, CLOCK_MONOTONIC", required=True),
        Column("end_ns", "int64", "ns", "End", required=True),
        Column("on_s", "float64", "s", "How long the device was busy", required=True),
    ),
)

STEPS = Table(
    "steps",
    "Step times of a small training with the sidecar beside it and without.",
    (
        Column("period_ms", "int32", "ms", "Sampling period of the sidecar; 0 is without", required=True),
        Column("block", "int32", "", "Each block has every setting once, in random order", required=True),
        Column("step_s", "float64", "s", "Time of one step", required=True),
    ),
)
