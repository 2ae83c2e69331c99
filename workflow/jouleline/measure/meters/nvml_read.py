"""Reading one GPU: the fast reader with its buffer, and the slow reader of the state."""

import os
import time
from collections.abc import Callable
from ctypes import byref, c_int32, c_uint, c_ulonglong, sizeof
from struct import Struct, calcsize
from typing import Any

import pynvml

from jouleline.measure.raw.proc import descendants

ENERGY, AVERAGE, INSTANT = 83, 185, 186
SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY = 0, 1, 2
# Codes that mean "this device does not have it". After one of these the reader never asks again.
ABSENT = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
)
SELDOM = 3

_FIELD = pynvml.c_nvmlFieldValue_t


def _picker(*kinds: str) -> Callable[[Any], tuple]:
    """Takes nvmlReturn and the value, of the given kinds, out of consecutive field values.

    This is one call. Four attributes of ctypes would cost as much as four such calls.
    """
    code, value = _FIELD.nvmlReturn.offset, _FIELD.value.offset
    form = "="
    for kind in kinds:
        used = value + calcsize("=" + kind)
        form += f"{code}xi{value - code - 4}x{kind}{sizeof(_FIELD) - used}x"
    return Struct(form).unpack_from


_BOTH = _picker("Q", "I")

Report = Callable[[int, str, int | None, str], None]


class Calls:
    """Remembers the last return code of every call of one device, and reports each change."""

    def __init__(self, device: int, report: Report):
        self.device, self.report = device, report
        self.codes: dict[str, int] = {}

    def note(self, call: str, code: int) -> None:
        if self.codes.get(call, 0) != code:
            self.codes[call] = code
            self.report(self.device, call, code, str(pynvml.NVMLError(code)) if code else "works again")


class FieldBuffer:
    """A fixed list of (field, scope), read with one call into the same memory every time."""

    def __init__(self, handle: Any, fields: list[tuple[int, int]], calls: Calls):
        self.handle, self.calls = handle, calls
        self.count = c_int32(len(fields))
        self.buffer = (pynvml.c_nvmlFieldValue_t * len(fields))()
        for entry, (field, scope) in zip(self.buffer, fields):
            entry.fieldId, entry.scopeId = field, scope
        self.memory = memoryview(self.buffer).cast("B")
        # Views of the same memory, made once, because making them costs more than the call.
        self.entries = list(self.buffer)
        self.values = [entry.value for entry in self.buffer]
        self.names = [f"nvmlDeviceGetFieldValues:{field}" for field, _ in fields]
        self.call = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetFieldValues")
        self.pointer = byref(self.buffer)

    def read(self) -> int:
        """The return code of the call; each field's own is in `entries[k].nvmlReturn`."""
        code = self.call(self.handle, self.count, self.pointer)
        self.note(code)
        return code

    def note(self, code: int) -> None:
        """Report a change of the call's code."""
        if code or self.calls.codes:
            self.calls.note("nvmlDeviceGetFieldValues", code)

    def good(self, number: int) -> bool:
        """Whether the field was read; reports a change of its code."""
        code = self.entries[number].nvmlReturn
        if code or self.calls.codes:
            self.calls.note(self.names[number], code)
        return code == 0


class FastReader:
    """Energy counter and instant power of one GPU: one call, two values.

    Where the fields are missing, it uses the old calls, one for each value. `scope` is the module's where the device
    alone cannot be read (`scope_name` says so).
    """

    def __init__(self, handle: Any, device: int, report: Report):
        self.handle = handle
        self.calls = Calls(device, report)
        self.scope = self._find_scope()
        self.scope_name = "module" if self.scope == SCOPE_MODULE else "gpu"
        self.fields = FieldBuffer(handle, [(ENERGY, 0), (INSTANT, self.scope)], self.calls)
        code = self.fields.read()
        energy_code, power_code = (code or entry.nvmlReturn for entry in self.fields.entries)
        self.energy_call = self._old_energy() if energy_code in ABSENT else None
        self.has_counter = energy_code not in ABSENT or self.energy_call is not None
        self.power_field = power_code not in ABSENT
        self.power_call = "field 186" if self.power_field else "nvmlDeviceGetPowerUsage"
        self.plain = self.power_field and self.has_counter and self.energy_call is None

    def _find_scope(self) -> int:
        for scope in (SCOPE_GPU, SCOPE_MODULE):
            probe = FieldBuffer(self.handle, [(INSTANT, scope)], Calls(0, lambda *_: None))
            if probe.read() == 0 and probe.entries[0].nvmlReturn == 0:
                return scope
        return SCOPE_GPU

    def _old_energy(self):
        """nvmlDeviceGetTotalEnergyConsumption where only the field is missing, else None."""
        function = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetTotalEnergyConsumption")
        return function if function(self.handle, byref(c_ulonglong())) not in ABSENT else None

    def read(self) -> tuple[int, int | None, int | None]:
        """status (NVML return code), energy_mj, power_mw."""
        fields = self.fields
        code = fields.call(fields.handle, fields.count, fields.pointer)
        if self.plain and not code and not self.calls.codes:
            # The usual case: both fields answered, and no call failed the last time.
            energy_code, energy, power_code, power = _BOTH(fields.memory)
            if not energy_code and not power_code:
                return 0, energy, power
        return self._take(code)

    def _take(self, code: int) -> tuple[int, int | None, int | None]:
        """What the call left, field by field. The older calls are used where such fields are missing."""
        fields = self.fields
        fields.note(code)
        energy = power = None
        if code == 0:
            if self.has_counter and self.energy_call is None and fields.good(0):
                energy = fields.values[0].ullVal
            if self.power_field and fields.good(1):
                power = fields.values[1].uiVal
        if self.energy_call is not None:
            value = c_ulonglong()
            old = self.energy_call(self.handle, byref(value))
            self.calls.note("nvmlDeviceGetTotalEnergyConsumption", old)
            energy = value.value if old == 0 else None
        if not self.power_field:
            power = self._old_power()
        if energy is not None or power is not None:
            return 0, energy, power
        return code or fields.entries[0].nvmlReturn or -1, None, None

    def _old_power(self) -> int | None:
        value = c_uint()
        code = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetPowerUsage")(self.handle, byref(value))
        self.calls.note("nvmlDeviceGetPowerUsage", code)
        return value.value if code == 0 else None


class SlowReader:
    """State of one GPU, once a second. What the device does not have is found at the start and then skipped."""

    field_columns = (
        ("power_average_mw", AVERAGE, SCOPE_GPU),
        ("power_module_mw", AVERAGE, SCOPE_MODULE),
        ("power_memory_mw", AVERAGE, SCOPE_MEMORY),
        ("throttle_power_ns", 74, 0),
        ("throttle_sync_boost_ns", 76, 0),
        ("throttle_sw_thermal_ns", 269, 0),
        ("throttle_hw_thermal_ns", 270, 0),
        ("throttle_power_brake_ns", 271, 0),
    )
    call_columns = (
        ("power_limit_mw", "nvmlDeviceGetEnforcedPowerLimit", ()),
        ("sm_clock_mhz", "nvmlDeviceGetClockInfo", (pynvml.NVML_CLOCK_SM,)),
        ("memory_clock_mhz", "nvmlDeviceGetClockInfo", (pynvml.NVML_CLOCK_MEM,)),
        ("temperature_c", "nvmlDeviceGetTemperature", (pynvml.NVML_TEMPERATURE_GPU,)),
        ("throttle_mask", "nvmlDeviceGetCurrentClocksEventReasons", ()),
        ("utilization", "nvmlDeviceGetUtilizationRates", ()),
    )
    seldom_columns = (
        ("memory_used_byte", "nvmlDeviceGetMemoryInfo", ()),
        ("foreign_processes", "nvmlDeviceGetComputeRunningProcesses_v3", ()),
    )
    columns = (
        *(name for name, *_ in field_columns),
        *(name for name, *_ in call_columns if name != "utilization"),
        "utilization_gpu",
        "utilization_memory",
        "memory_used_byte",
        "foreign_processes",
    )

    def __init__(self, handle: Any, device: int, scope: int, root_pid: int, meter):
        self.handle, self.root_pid, self.meter, self.device = handle, root_pid, meter, device
        self.calls = Calls(device, meter.report)
        self.sweeps = 0
        # The ids of the processes on the device, and the number of them that belong to the run.
        self.seen: tuple[list[int], int | None] | None = None
        self.absent: set[str] = set()
        self.fields = self._probe_fields(scope)
        for name, call, arguments in (*self.call_columns, *self.seldom_columns):
            try:
                self._invoke(call, arguments)
            except pynvml.NVMLError as error:
                if error.value in ABSENT:
                    self.absent.add(name)
        self.capabilities = {
            name: name not in self.absent and (name in self.field_names or not self._is_field(name))
            for name in (
                *(n for n, *_ in self.field_columns),
                *(n for n, *_ in self.call_columns),
                "foreign_processes",
            )
        }

    def _is_field(self, name: str) -> bool:
        return any(name == field for field, *_ in self.field_columns)

    def _probe_fields(self, scope: int) -> FieldBuffer | None:
        """A buffer of the fields that this device has."""
        wanted = [(n, f, scope if n == "power_average_mw" else s) for n, f, s in self.field_columns]
        probe = FieldBuffer(self.handle, [(f, s) for _, f, s in wanted], Calls(0, lambda *_: None))
        code = probe.read()
        kept = [w for w, e in zip(wanted, probe.entries) if (code or e.nvmlReturn) not in ABSENT]
        self.field_names = [name for name, *_ in kept]
        return FieldBuffer(self.handle, [(f, s) for _, f, s in kept], self.calls) if kept else None

    def _invoke(self, call: str, arguments: tuple) -> Any:
        return getattr(pynvml, call)(self.handle, *arguments)

    def _read_fields(self, row: dict[str, Any]) -> None:
        if self.fields is None or self.fields.read() != 0:
            return
        for number, name in enumerate(self.field_names):
            if self.fields.good(number):
                value = self.fields.values[number]
                row[name] = value.uiVal if name.endswith("_mw") else value.ullVal

    def _read_calls(self, entries: tuple, row: dict[str, Any]) -> None:
        for name, call, arguments in entries:
            if name in self.absent:
                continue
            label = call if name != "memory_clock_mhz" else f"{call}:memory"
            try:
                row[name] = self._invoke(call, arguments)
                self.calls.note(label, 0)
            except pynvml.NVMLError as error:
                self.calls.note(label, error.value)

    def read(self) -> tuple:
        """The values of `columns`; None where not read this time."""
        row: dict[str, Any] = {}
        self._read_fields(row)
        self._read_calls(self.call_columns, row)
        if self.sweeps % SELDOM == 0:
            self._read_calls(self.seldom_columns, row)
            if "memory_used_byte" in row:
                row["memory_used_byte"] = row["memory_used_byte"].used
            if "foreign_processes" in row:
                row["foreign_processes"] = self._foreign([p.pid for p in row["foreign_processes"]])
        self.sweeps += 1
        if "utilization" in row:
            rates = row.pop("utilization")
            row["utilization_gpu"], row["utilization_memory"] = rates.gpu, rates.memory
        return tuple(row.get(name) for name in self.columns)

    def _foreign(self, pids: list[int]) -> int | None:
        """How many processes on the device do not belong to the run.

        An event reports a change of this number or of the run's own (`own`). None where the ids are of another pid
        namespace (a container), because then nothing can be said.
        """
        own: int | None = 0
        foreign: int | None = 0
        if pids:
            there = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
            ours = {self.root_pid, *descendants([self.root_pid])}
            own = sum(pid in ours for pid in there) if there else None
            foreign = len(there) - own if there else None
        if (seen := (sorted(pids), own)) != self.seen:
            self.seen = seen
            event = {"kind": "processes", "device": self.device, "pids": seen[0], "own": own}
            self.meter.events.append(event | {"t_us": time.monotonic_ns() // 1000})
        return foreign
