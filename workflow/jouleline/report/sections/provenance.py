"""Where every number comes from: digests of inputs and code, versions, and the dates of the runs."""

import platform

from jouleline.report import labels
from jouleline.report.blocks import Cell, Section, Table, columns
from jouleline.report.facts import facts, flatten
from jouleline.report.inputs import Inputs
from jouleline.report.numbers import count


def build(inputs: Inputs, stamp: str) -> Section:
    """Digests, versions and settings."""
    blocks = [_what(inputs), _digests(inputs)]
    if inputs.config:
        blocks.append(facts("Campaign configuration", flatten(inputs.config), folded=True))
    return Section("provenance", "Provenance", [block for block in blocks if block])


def summary(inputs: Inputs) -> str:
    """The line under the title: runs, devices, hosts, days, and the source of the energy."""
    records = inputs.records.values()
    devices = sorted({str(run["device"]) for run in inputs.runs if run.get("device")})
    hosts = sorted({str(run["host"]) for run in inputs.runs if run.get("host")})
    days = sorted(
        {
            str(record[key])[:10]
            for record in records
            for key in ("started_utc", "ended_utc")
            if record.get(key)
        }
    )
    parts = [f"{len(inputs.runs)} run{'' if len(inputs.runs) == 1 else 's'}"]
    if devices:
        parts.append("on " + ", ".join(devices))
    if hosts:
        parts.append(
            f"(host{'' if len(hosts) == 1 else 's'} {', '.join(hosts[:4])}{' and others' if len(hosts) > 4 else ''})"
        )
    period = "" if not days else f", {days[0]}" if days[0] == days[-1] else f", {days[0]} to {days[-1]}"
    sources = "; ".join(labels.source(name) for name in inputs.energy_sources)
    return f"{' '.join(parts)}{period}." + (f" Energy {sources}." if sources else "")


def _what(inputs: Inputs) -> Table | None:
    from importlib.metadata import version

    records = inputs.records.values()
    times = sorted(
        str(record[key]) for record in records for key in ("started_utc", "ended_utc") if record.get(key)
    )
    digests = sorted({str(record["code_digest"]) for record in records if record.get("code_digest")})
    fit_versions = {pair for fit in inputs.fits for pair in flatten(fit.get("versions") or {})}
    tables = sorted({str(fit["runs_digest"]) for fit in inputs.fits if fit.get("runs_digest")})
    pairs = [
        ("campaign", inputs.campaign),
        ("report made by", f"jouleline {version('jouleline')}, Python {platform.python_version()}"),
    ]
    if times:
        pairs.append(("measured", f"{times[0]} to {times[-1]}"))
    pairs += [("measuring code", digest) for digest in digests]
    pairs += [("runs table of the fits", digest) for digest in tables]
    pairs += [(f"fit: {key}", value) for key, value in sorted(fit_versions)]
    return facts("Versions and dates", pairs, folded=True)


def _digests(inputs: Inputs) -> Table | None:
    if not inputs.digests:
        return None
    rows = [[Cell(name), digest] for name, digest in sorted(inputs.digests.items())]
    return Table(f"Input files ({count(len(rows))})", columns("File", "SHA-256"), rows, folded=True)
