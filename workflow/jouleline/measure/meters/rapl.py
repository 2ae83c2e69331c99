"""RAPL by Linux powercap: the energy of the CPU packages and their memory.

Files: /sys/class/powercap/intel-rapl:<p>/{name,energy_uj,max_energy_range_uj} and the subzones intel-rapl:<p>:<k>. A
package contains its core and uncore subzones already. So only packages and dram count; psys and the copies under
intel-rapl-mmio are left out. The counter wraps at max_energy_range_uj (262 kJ, about half an hour at 150 W). A suspend
or a reload of its driver resets it.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jouleline.errors import UserError
from jouleline.measure.meters.base import FAST, NO_METER, LaneSpec, Options

# The folder of these files. A container may have the host's /sys in another place.
ROOT_ENVIRONMENT = "JOULELINE_POWERCAP"
ROOT = "/sys/class/powercap"
# No package and no memory draws more. If a wrap would mean more than this, it was a reset. The limits that the zones
# state are of no use: processors exceed them, and some state 0.
MOST_W = 2000.0
# The counter moves every millisecond, but a reading may come late.
LATE_S = 0.01
# A counter that has not moved for so long does not count. Virtual machines have such zones, and some boards such a
# memory.
COUNTS_S, COUNTS_POLL_S = 0.5, 0.005


def zones(root: Path) -> list[Path]:
    """The zones to sum: every package, and every dram that no package contains."""
    found = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            # A package that is passed over would be missing in the sum. The meter says what cannot be read.
            name = "package" if zone.name.count(":") == 1 else ""
        if name.startswith("package") or name == "dram":
            found.append(zone)
    return found


def readable() -> bool:
    """Whether this node has zones, and this user may read all their counters."""
    found = zones(Path(os.environ.get(ROOT_ENVIRONMENT, ROOT)))
    return bool(found) and all(os.access(zone / "energy_uj", os.R_OK) for zone in found)


class Zone:
    """One counter without its wraps: energy in mJ since it was opened.

    Raises UserError with exit code 3 that names the file that cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            name = (path / "name").read_text(encoding="utf-8", errors="replace").strip()
            self.label, self.memory = f"{name} ({path.name})", name == "dram"
            self.range_uj = int((path / "max_energy_range_uj").read_text(encoding="utf-8", errors="replace"))
            if self.range_uj <= 0:
                raise ValueError(f"max_energy_range_uj is {self.range_uj}")
            self.handle = os.open(path / "energy_uj", os.O_RDONLY)
            self.last_uj, self.last_s = self.raw_uj(), time.monotonic()
        except PermissionError as error:
            remedy = "let an administrator run: chmod a+r " + str(path / "energy_uj")
            raise UserError(f"no permission to read {path / 'energy_uj'}; {remedy}", NO_METER) from error
        except (OSError, ValueError) as error:
            raise UserError(f"no RAPL: a file under {path} cannot be read ({error})", NO_METER) from error
        self.total_uj: int | None = 0

    def raw_uj(self) -> int:
        """The counter's value. Raises OSError, and ValueError where it is no number."""
        return int(os.pread(self.handle, 32, 0))

    def read_mj(self) -> int | None:
        """None from a reset on. The energy lost in a reset is unknown, so the sum is unknown too."""
        raw, now_s = self.raw_uj(), time.monotonic()
        if self.total_uj is None:
            return None
        # Modulo the range. This is right for one wrap between readings; a wrap takes minutes.
        gain_uj = (raw - self.last_uj) % (self.range_uj + 1)
        most_uj = MOST_W * 1e6 * (now_s - self.last_s + LATE_S)
        # After so long without a reading it may have wrapped twice, which is as bad.
        if gain_uj > most_uj or most_uj > self.range_uj:
            self.total_uj = None
            return None
        self.total_uj += gain_uj
        self.last_uj, self.last_s = raw, now_s
        return round(self.total_uj * 1e-3)


def _still(zones: list[Zone]) -> list[Zone]:
    """The zones whose counters do not move."""
    left = {zone: zone.last_uj for zone in zones}
    deadline = time.monotonic() + COUNTS_S
    while left and time.monotonic() < deadline:
        time.sleep(COUNTS_POLL_S)
        left = {zone: first for zone, first in left.items() if zone.raw_uj() == first}
    return list(left)


class RaplMeter:
    """Packages and memory of the node: one device per zone, all summed for the job.

    `first_index` and `role` let it stand beside the GPUs as the energy of the host. Memory that does not count is left
    out. Raises UserError with exit code 3: no zone, no permission, or a package that does not count.
    """

    name = "rapl"
    energy_source = "rapl"

    def __init__(self, options: Options, first_index: int = 0, role: str = "job"):
        self.options = options
        self.first_index = first_index
        root = Path(os.environ.get(ROOT_ENVIRONMENT, ROOT))
        self.zones = [Zone(path) for path in zones(root)]
        remedy = "(Intel or AMD Linux on bare metal has them); use --meter estimate for a declared estimate"
        if not self.zones:
            raise UserError(f"no RAPL zones under {root} {remedy}", NO_METER)
        still = _still(self.zones)
        # Without a package the sum would be too small, so this is an error. Missing memory is only reported.
        if packages := [zone.label for zone in still if not zone.memory]:
            raise UserError(f"no RAPL zones that count: {packages[0]} stands still {remedy}", NO_METER)
        self.zones = [zone for zone in self.zones if zone not in still]
        if all(zone.memory for zone in self.zones):  # the memory's joules alone are no total
            raise UserError(f"no RAPL zones that count under {root} {remedy}", NO_METER)
        self.events = [{"kind": "zone_left_out", "device": first_index, "zone": zone.label} for zone in still]
        self.devices = [
            {
                "index": first_index + number,
                "uuid": f"rapl:{options.node}:{zone.path.name}",
                "name": zone.label,
                "kind": "rapl",
                "role": role,
                "counter": "continuous",
            }
            for number, zone in enumerate(self.zones)
        ]
        self.capabilities = {"energy_counter": True}
        self.facts = {"powercap": str(root)}
        self.reset: set[int] = set()

    def read(self, target: int) -> tuple[int, int | None, None]:
        """status (errno), energy_mj, power_mw (never known)."""
        try:
            energy_mj = self.zones[target - self.first_index].read_mj()
        except OSError as error:
            return error.errno or -1, None, None
        except ValueError:
            return -1, None, None
        return (0 if energy_mj is not None else -1), energy_mj, None

    def readers(self) -> dict[int, Callable[[], tuple[int, int | None, None]]]:
        """What reads each zone, by index of its device."""
        return {device["index"]: partial(self.read, device["index"]) for device in self.devices}

    def lanes(self) -> list[LaneSpec]:
        columns = ("status", "energy_mj", "power_mw")
        return [LaneSpec("rapl", FAST, self.options.period_s, columns, self.readers())]

    def check(self) -> list[dict]:
        """An event, once, for every zone that was left out or reset."""
        left_out, self.events = self.events, []
        found = [device["index"] for device, zone in zip(self.devices, self.zones) if zone.total_uj is None]
        fresh = [index for index in found if index not in self.reset]
        self.reset.update(fresh)
        return [
            *left_out,
            *({"kind": "counter_reset", "device": index} for index in fresh),
        ]
