"""Compare what jobs will ask for with the limits of the partitions, before the first row is paid for."""

import os
import re
from collections.abc import Iterable

from jouleline.slurm.ask import ask
from jouleline.slurm.leftovers import name_of, parts_of

# What is asked of Slurm: the partition's limit for it, and its unit.
LIMITS = {"runtime": ("MaxTime", "minutes"), "mem_mb": ("MaxMemPerNode", "MB")}


def partitions() -> dict[str, dict[str, float]]:
    """{partition: {"runtime": minutes, "mem_mb": MB per node}} of the known limits. The default partition is also under
    ""."""
    found = {}
    for line in (ask("scontrol", "--oneliner", "show", "partition") or "").splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        known = {
            "runtime": minutes(fields.get("MaxTime", "")),
            "mem_mb": _number(fields.get("MaxMemPerNode", "")),
        }
        limits = {name: value for name, value in known.items() if value is not None}
        if "PartitionName" in fields:
            found[fields["PartitionName"]] = limits
            if fields.get("Default") == "YES":
                found[""] = limits
    return found


def minutes(text: str) -> float | None:
    """Minutes of a time in the form of Slurm (`1-02:00:00`, `02:00:00`). None for UNLIMITED or anything else."""
    parts = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if not parts:
        return None
    days, hours, minute, seconds = (int(part or 0) for part in parts.groups())
    return 1440 * days + 60 * hours + minute + seconds / 60


def _number(text: str) -> float | None:
    return float(text) if text.isdigit() else None


def beyond(jobs: Iterable, known: dict[str, dict[str, float]]) -> list[str]:
    """One line for each kind of job (or group) that asks for more than its partition allows."""
    found: dict[tuple, str] = {}
    for job in jobs:
        partition = job.resources.get("slurm_partition") or os.environ.get("SBATCH_PARTITION", "")
        for resource, (name, unit) in LIMITS.items():
            asked = job.resources.get(resource)
            limit = known.get(str(partition), {}).get(resource)
            if isinstance(asked, int) and limit is not None and asked > limit:
                rules = sorted({part.rule.name for part in parts_of(job)})
                key = (*rules, resource, partition)
                found.setdefault(
                    key,
                    f"{'group ' * job.is_group()}{name_of(job)} asks for {asked} {unit}, and partition "
                    f"{partition or '(default)'} allows {limit:.0f} ({name}); "
                    f"--set-resources {' '.join(f'{rule}:{resource}=...' for rule in rules)} asks for less",
                )
    return list(found.values())
