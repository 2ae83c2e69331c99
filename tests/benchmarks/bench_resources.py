"""What each rule asks of Slurm and what accounting says that it took: the table in profiles/README.md.

A small campaign with one job for each step runs on a real Slurm with accounting (tests/slurm). Memory taken is sacct's
MaxRSS of a job's steps together: the rule's processes, which share no page twice, and the two Snakemakes around them,
looked at every second. On a site: `sacct -j JOB --format=JobID,ReqMem,MaxRSS,TimelimitRaw,ElapsedRaw`.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

import yaml
from jouleline.files import write_text

from tests.slurm.campaign import SNAPPY, Campaign
from tests.slurm.cluster import Cluster
from tests.slurm.settings import Settings
from tests.workflow.checkout import ROOT, Checkout
from tests.workflow.slurm_runs import make_checkout

PAGE = ROOT / "profiles" / "README.md"
BEGIN, END = "<!-- made by `make bench-resources` -->", "<!-- end of it -->"
FIELDS = "JobIDRaw,Comment,TimelimitRaw,ElapsedRaw,TotalCPU,ReqMem,MaxRSS,State"
MB = {"K": 1 / 1024, "M": 1, "G": 1024, "": 1 / 2**20}
# What a rule asks beyond that of a few runs.
GROWS = {
    "integrate_energy": ", and 1 for each 100 runs of a shard",
    "collect_runs": ", and 1 for each 500 runs",
}


def mb_of(text: str) -> float | None:
    """`4000M`, `165432K` or `0` in MB; None where accounting knows nothing."""
    found = re.fullmatch(r"([\d.]+)([KMG]?)[nc]?", text)
    return float(found[1]) * MB[found[2]] if found else None


def seconds_of(text: str) -> float:
    """`01:02.345`, `1:00:02` or `2-00:00:00` in s."""
    days, _, rest = text.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = 60 * total + float(part)
    return total + 86400 * int(days or 0)


def read(said: str) -> dict[str, dict[str, float]]:
    """{rule: minutes and MB asked, s, CPU s and MB taken}, the most of its jobs, from lines of sacct with FIELDS.

    A job's steps run beside each other, so their memory is added.
    """
    jobs: dict[str, dict] = {}
    for line in said.splitlines():
        step, comment, minutes, seconds, cpu, asked, rss, state = line.split("|")
        job = step.split(".")[0]
        if "." not in step:
            assert state == "COMPLETED", line
            rule = re.match(r"rule_(\w+?)(_wildcards_.*)?:", comment)[1]
            figures = {"minutes": float(minutes), "s": float(seconds), "cpu_s": seconds_of(cpu)}
            jobs[job] = {"rule": rule, **figures, "asked_mb": mb_of(asked)}
        else:
            jobs[job]["mb"] = jobs[job].get("mb", 0.0) + (mb_of(rss) or 0.0)
    rules: dict[str, dict[str, float]] = {}
    for job in jobs.values():
        kept = rules.setdefault(job.pop("rule"), {})
        kept.update({name: max(value, kept.get(name, 0.0)) for name, value in job.items()})
    return rules


def table(rules: dict[str, dict[str, float]]) -> str:
    words = ("rule", "minutes asked", "seconds taken", "CPU s", "memory asked, MB", "taken, MB")
    lines = [f"| {' | '.join(words)} |", "| --- " * len(words) + "|"]
    for rule, found in rules.items():
        minutes = f"{found['minutes']:.0f}{GROWS.get(rule, '')}"
        figures = f"{found['s']:.0f} | {found['cpu_s']:.0f} | {found['asked_mb']:.0f} | {found['mb']:.0f}"
        lines.append(f"| `{rule}` | {minutes} | {figures} |")
    return "\n".join(lines)


def without_groups(checkout: Checkout) -> str:
    """The profile `slurm` with a job for each step; its folder."""
    profile = yaml.safe_load((checkout.root / "profiles/slurm/config.yaml").read_text())
    profile.pop("groups")
    (checkout.root / "apart").mkdir()
    (checkout.root / "apart/config.yaml").write_text(yaml.safe_dump(profile))
    return "apart"


def run(folder: Path) -> str:
    """What sacct says of the jobs of a whole campaign."""
    rows = [{"layers": layers, "hidden": hidden, "heads": 2} for layers in (1, 2, 3) for hidden in (64, 128)]
    rows += [{"layers": layers, "nodes": 2, "zero_stage": stage} for layers in (1, 2) for stage in (1, 3)]
    checkout = make_checkout(folder / "checkout", 2, *rows)
    checkout.campaign["analysis"] |= {"models": ["constant", "power_law", "hybrid"], "headline": "hybrid"}
    checkout.save()
    with Cluster(Settings(nodes=4), Path(tempfile.mkdtemp(prefix="slurm-testbed-")), owned=True) as cluster:
        arguments = ["--profile", without_groups(checkout), *SNAPPY, "--configfile", "campaign.yaml"]
        with Campaign(cluster, checkout.root, *arguments) as campaign:
            if campaign.wait(1800):
                raise SystemExit(f"the campaign failed:\n{campaign.said()[-3000:]}")
        return cluster.run("sacct", "--noheader", "--parsable2", "--allusers", f"--format={FIELDS}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-resources-") as name:
        rules = read(run(Path(name)))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    where = f"On {os.cpu_count()} cores with a load of {os.getloadavg()[1]:.0f} at the end:"
    write_text(PAGE, f"{before}{BEGIN}\n{where}\n\n{table(rules)}\n{END}{after}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
