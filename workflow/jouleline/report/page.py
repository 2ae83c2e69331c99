"""The page: sections in order, one template, one file that needs no other file."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from jouleline import files
from jouleline.report import export, labels
from jouleline.report.blocks import Section
from jouleline.report.canvas import TEMPLATES
from jouleline.report.inputs import Inputs
from jouleline.report.sections import (
    decide,
    dictionary,
    efficiency,
    headline,
    heldout,
    machine,
    paper_law,
    parameters,
    provenance,
    residuals,
    rounds,
    runs,
    timings,
    traces,
)

# In the order of the page. A section with nothing to say returns None.
SECTIONS = (
    decide,
    headline,
    heldout,
    residuals,
    paper_law,
    parameters,
    efficiency,
    rounds,
    runs,
    timings,
    traces,
    machine,
    provenance,
    dictionary,
)


@dataclass(frozen=True)
class Page:
    """What the template prints around the sections."""

    title: str
    subtitle: str
    stamp: str
    stamp_detail: str
    sections: list[Section]
    footer: str


def render(inputs: Inputs) -> str:
    """The report as one HTML document. Equal inputs give equal text."""
    return markup(build(inputs))


def markup(page: Page) -> str:
    """A page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "tables.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html.j2")
    return template.render(page=page, script=Markup(script), script_digest=digest)


def write(inputs: Inputs, path: Path, folder: Path | None = None) -> None:
    """Write the report to `path` and, if given, its parts as files into the new folder `parts`: see `export`."""
    page = build(inputs)
    if folder:
        with files.atomic_folder(folder) as temporary:
            export.write(page, temporary)
    files.write_text(path, markup(page))


def build(inputs: Inputs) -> Page:
    """The content of the page, before markup."""
    stamp = labels.estimate_notice(inputs.energy_sources)
    sections = [section for section in (module.build(inputs, stamp) for module in SECTIONS) if section]
    return Page(
        title=inputs.settings.get("title") or f"Campaign {inputs.campaign}",
        subtitle=provenance.summary(inputs),
        stamp=stamp,
        stamp_detail=_stamp_detail(inputs) if stamp else "",
        sections=sections,
        footer="Made by jouleline from the files listed under Provenance. Null is shown as a dash: unknown, not zero.",
    )


def _stamp_detail(inputs: Inputs) -> str:
    protocols = [record.get("protocol") or {} for record in inputs.records.values()]
    watts = sorted(
        {str(p["estimate_w_per_core"]) for p in protocols if p.get("estimate_w_per_core") is not None}
    )
    declared = f" ({' or '.join(watts)} W per busy core, declared in the protocol)" if watts else ""
    return (
        "The machine has no power meter that this program can read, so energy was computed from the CPU time of the "
        f"run and declared watts{declared}. Times are measured. Nothing here is evidence about real joules; it shows "
        "that the pipeline works and how well the models predict this estimate."
    )
