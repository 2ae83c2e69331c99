"""Worker of test_return_codes: every return code of every NVML call that the meter makes, in one process.

Prints JSON: {"read": [...], "open": [...], "absent": [...], "functions": [...], "combinations": n}. All lists except
the functions hold what is wrong.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pynvml
from fake_nvml.driver import FakeNode
from jouleline.errors import UserError
from jouleline.measure.meters.base import Options
from jouleline.measure.meters.nvml import NvmlMeter

CODES = sorted(
    {v for k, v in vars(pynvml).items() if k.startswith("NVML_ERROR_") and isinstance(v, int) and v > 0}
)
ABSENT = (3, 4, 13)
FIELD_CALL = "nvmlDeviceGetFieldValues"
# Calls of the slow lane and the columns that must be null when they fail.
SLOW = {
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_mw"},
    "nvmlDeviceGetClockInfo": {"sm_clock_mhz", "memory_clock_mhz"},
    "nvmlDeviceGetTemperature": {"temperature_c"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle_mask"},
    "nvmlDeviceGetUtilizationRates": {"utilization_gpu", "utilization_memory"},
    "nvmlDeviceGetMemoryInfo": {"memory_used_byte"},
    "nvmlDeviceGetComputeRunningProcesses_v3": {"foreign_processes"},
}
FIELDS = {
    185: {"power_average_mw", "power_memory_mw"},
    74: {"throttle_power_ns"},
    76: {"throttle_sync_boost_ns"},
    269: {"throttle_sw_thermal_ns"},
    270: {"throttle_hw_thermal_ns"},
    271: {"throttle_power_brake_ns"},
}
# Columns whose capability has another name.
CLAIMED_AS = {"utilization_gpu": "utilization", "utilization_memory": "utilization"}


def open_meter() -> NvmlMeter:
    return NvmlMeter(Options(root_pid=os.getpid(), period_s=0.02, node="n"))


def one_fault(node: FakeNode, function: str, code: int, field: int = 0) -> None:
    node.state.n_faults = 0
    if code:
        node.fault(function, code=code, field=field)


def check_fast(node, meter, code) -> list[str]:
    """A failed call gives nulls and its code. A failed field gives null only for itself. Each failure is an event."""
    wrong, reader = [], meter.fast[0]
    for field, expected in ((0, (code, False, False)), (83, (0, False, True)), (186, (0, True, False))):
        meter.check()
        one_fault(node, FIELD_CALL, code, field)
        status, energy, power = reader.read()
        events = meter.check()
        if (status, energy is not None, power is not None) != expected:
            wrong.append(f"{field}/{code}: {status}, {energy}, {power}")
        if not any(e["kind"] == "call_failed" and e["code"] == code for e in events):
            wrong.append(f"{field}/{code}: no event")
        one_fault(node, FIELD_CALL, 0)
        if None in reader.read() or not any(e["kind"] == "call_recovered" for e in meter.check()):
            wrong.append(f"{field}/{code}: did not recover")
    return wrong


def check_slow(node, meter, code) -> list[str]:
    wrong, reader = [], meter.slow[0]
    cases = [(name, 0, columns) for name, columns in SLOW.items()]
    cases += [(FIELD_CALL, field, columns) for field, columns in FIELDS.items()]
    cases += [(FIELD_CALL, 0, set().union(*FIELDS.values()))]
    for function, field, columns in cases:
        meter.check()
        one_fault(node, function, code, field)
        reader.sweeps = 0
        row = dict(zip(reader.columns, reader.read()))
        null = {name for name, value in row.items() if value is None} - {"power_module_mw"}
        # Insufficient size is how the process list asks for room. The second call then has the same fault.
        if null != columns:
            wrong.append(f"{function}:{field}/{code}: null {sorted(null)}, expected {sorted(columns)}")
        if not any(e["kind"] == "call_failed" and e["code"] == code for e in meter.check()):
            wrong.append(f"{function}:{field}/{code}: no event")
        one_fault(node, function, 0)
        reader.sweeps = 0
        reader.read()
    return wrong


def check_open(node, function, code) -> list[str]:
    """Opening either works with nulls, or ends with one line and exit code 2 or 3. It never raises another
    exception."""
    one_fault(node, function, code)
    try:
        meter = open_meter()
    except UserError as error:
        good = error.exit_code in (2, 3) and "\n" not in str(error)
        return [] if good else [f"{function}/{code}: exit code {error.exit_code}: {error}"]
    except Exception as error:
        return [f"{function}/{code}: {type(error).__name__}: {error}"]
    device = meter.devices[0]
    if device["role"] != "job" or device["kind"] != "gpu":
        return [f"{function}/{code}: {device}"]
    # Where the GPU is unreadable there is no reader, and the verdict finds that the device is missing.
    values = meter.fast[0].read() if 0 in meter.fast else (code, None, None)
    return [f"{function}/{code}: {text}" for text in untrue(node, values)]


def untrue(node: FakeNode, values: tuple) -> list[str]:
    """What is wrong with a fast reading. Each value must be null or the truth, and the status 0 exactly where there is
    one."""
    status, energy_mj, power_mw = values
    wrong = []
    low_j, high_j = (
        node.gpus[0].counter_start_j + node.true_energy_j(0, 0, node.now_s() - s) for s in (1, 0)
    )
    if energy_mj is not None and not low_j <= energy_mj * 1e-3 <= high_j:
        wrong.append(f"energy {energy_mj} mJ, true {low_j} to {high_j} J")
    if power_mw is not None and abs(power_mw * 1e-3 - 100.0) > 5:
        wrong.append(f"power {power_mw} mW")
    if (status == 0) != (energy_mj is not None or power_mw is not None):
        wrong.append(f"status {status} with {energy_mj}, {power_mw}")
    return wrong


def check_absent(node, code) -> list[str]:
    """What the device does not have is no capability. It is null, unless the older call has it. Then it is the
    truth."""
    power, energy = "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"
    every_field = set().union(*FIELDS.values())
    # Faults (function, field), the columns that the device then lacks, and whether it has energy and power.
    cases = [
        ([], set(), True, True),
        ([(FIELD_CALL, 83)], set(), True, True),
        ([(FIELD_CALL, 83), (energy, 0)], {"energy_counter"}, False, True),
        ([(FIELD_CALL, 186)], set(), True, True),
        ([(FIELD_CALL, 186), (power, 0)], set(), True, False),
        ([(FIELD_CALL, 0)], every_field, True, True),
        ([(FIELD_CALL, 0), (energy, 0), (power, 0)], every_field | {"energy_counter"}, False, False),
        *(([(FIELD_CALL, field)], columns, True, True) for field, columns in FIELDS.items()),
        *(([(name, 0)], columns, True, True) for name, columns in SLOW.items()),
    ]
    return [f"{case[0]}/{code}: {text}" for case in cases for text in wrong_without(node, code, *case)]


def wrong_without(node, code, faults, lacking, has_energy, has_power) -> list[str]:
    node.state.n_faults = 0
    for function, field in faults:
        node.fault(function, code=code, field=field)
    meter = open_meter()
    device, values = meter.devices[0], meter.fast[0].read()
    capabilities = meter.capabilities[device["uuid"]]
    wrong = untrue(node, values)
    if (values[1] is not None, values[2] is not None) != (has_energy, has_power):
        wrong.append(f"reads {values}")
    # This GPU is no module, so the power of a module never exists.
    missing = lacking | {"power_module_mw"}
    off = {name for name, claimed in capabilities.items() if not claimed}
    expected = {CLAIMED_AS.get(name, name) for name in missing} & set(capabilities)
    if off != expected or (device["counter"] is None) == has_energy:
        wrong.append(f"not claimed {sorted(off)}, expected {sorted(expected)}; counter {device['counter']}")
    row = dict(zip(meter.slow[0].columns, meter.slow[0].read()))
    null = {name for name, value in row.items() if value is None}
    if null != missing & set(row):
        wrong.append(f"null {sorted(null)}, expected {sorted(missing & set(row))}")
    return wrong


def main() -> int:
    folder = Path(tempfile.mkdtemp(dir=os.environ["WORK"]))
    node = FakeNode(folder, Path(os.environ["LD_LIBRARY_PATH"]), 1)
    os.environ["FAKE_NVML_STATE"] = str(node.path)
    meter = open_meter()
    meter.fast[0].read(), meter.slow[0].read()
    functions = sorted(node.called())
    read = [text for code in CODES for check in (check_fast, check_slow) for text in check(node, meter, code)]
    opened = [text for function in functions for code in CODES for text in check_open(node, function, code)]
    absent = [text for code in ABSENT for text in check_absent(node, code)]
    combinations = len(CODES) * (3 + len(SLOW) + len(FIELDS) + 1 + len(functions))
    print(
        json.dumps(
            {
                "read": read,
                "open": opened,
                "absent": absent,
                "functions": functions,
                "combinations": combinations,
            }
        )
    )
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
