"""What Slurm's accounting knows of a finished run: the times of its job, and the energy of its training step.

Sites may gather energy (AcctGatherEnergyType: RAPL, IPMI, Cray's pm_counters, GPUs). They report ConsumedEnergyRaw per
step, in joules, for whole nodes. Only the step counts. The figure of the job counts overlapping steps twice, and does
not count the batch step at all. Times are whole seconds. What accounting does not know is null, never 0.

Accounting forgets. So an answer is kept in a file of its own, and only what is missing there is asked again.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import read_json, write_json
from jouleline.slurm.ask import ask

FIELDS = ("JobIDRaw", "Submit", "Start", "End", "ConsumedEnergyRaw")
JOBS_PER_QUERY = 500
QUERY_TIMEOUT_S = 120
# A run starts some seconds after its step. Job ids are used again when a controller loses its state.
TOLERANCE_S = 60
# Slurm's marks for "not known" in a 64-bit field.
UNKNOWN = {0, 2**64 - 1, 2**64 - 2}

Answer = dict[str, Any]


def record_all(run_files: Iterable[Path], kept_in: Path) -> int:
    """Ask about the finished runs of `run_files` for what `kept_in` does not hold yet, and write all answers there.

    The file is {run_id: {step, submit_s, start_s, end_s, energy_j}}: `<job>.<step>`, times in seconds since the epoch,
    energy in joules, null where not known. Runs without Slurm are not in it. Returns the number of runs in it. Without
    sacct, or where it does not answer in time, earlier answers stay. They are a cross-check, and nothing fails without
    them.
    """
    steps: dict[str, str] = {}
    records: dict[str, Mapping[str, Any]] = {}
    for path in run_files:
        try:
            record = read_json(path)
        except UserError:
            continue  # the integration reports what is wrong with it
        step = step_of(record)
        if step:
            steps[path.parent.name], records[path.parent.name] = step, record
    earlier = read(kept_in)
    answers = {
        run_id: earlier[run_id] for run_id in steps if earlier.get(run_id, {}).get("step") == steps[run_id]
    }
    wanted = {run_id for run_id in steps if None in answers.get(run_id, {"step": None}).values()}
    known = query({steps[run_id] for run_id in wanted}) if wanted else {}
    for run_id in sorted(wanted):
        found = known.get(steps[run_id])
        if found and _is_of(records[run_id], found):
            old = answers.get(run_id, {})
            # An answer that was known once stays known.
            new = {name: old.get(name) if value is None else value for name, value in found.items()}
            answers[run_id] = {"step": steps[run_id], **new}
    write_json(kept_in, answers)
    return len(answers)


def read(path: Path) -> dict[str, Answer]:
    """The answers kept in a file. Empty where there is none, or where it is torn."""
    try:
        return read_json(path)
    except UserError:
        return {}


def step_of(record: Mapping[str, Any]) -> str | None:
    """`<job>.<step>` of the training step of a run, from its record. `<job>` without a step. None without Slurm."""
    slurm = (record.get("environment") or {}).get("slurm") or {}
    return ".".join(filter(None, (slurm.get("SLURM_JOB_ID"), slurm.get("SLURM_STEP_ID")))) or None


def query(steps: Iterable[str]) -> dict[str, Answer]:
    """{step: {submit_s, start_s, end_s, energy_j}} of the steps whose job sacct knows. Empty without an answer."""
    steps = set(steps)
    jobs = sorted({step.split(".")[0] for step in steps})
    lines: dict[str, Answer] = {}
    for i in range(0, len(jobs), JOBS_PER_QUERY):
        chosen = f"--jobs={','.join(jobs[i : i + JOBS_PER_QUERY])}"
        options = ("--noheader", "--parsable2", f"--format={','.join(FIELDS)}", chosen)
        said = ask("sacct", *options, timeout_s=QUERY_TIMEOUT_S, SLURM_TIME_FORMAT="%s")
        if said is None:
            break
        lines |= parse(said)
    found = {}
    for step in steps:
        job = lines.get(step.split(".")[0])
        if job:
            energy_j = lines[step]["energy_j"] if "." in step and step in lines else None
            found[step] = {**job, "energy_j": energy_j}
    return found


def parse(text: str) -> dict[str, Answer]:
    """Lines of `sacct --parsable2` with FIELDS, by job or step. Left out are those that have not started or are no
    answer."""
    found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == len(FIELDS) and fields[1].isdigit() and fields[2].isdigit():
            name, submit, start, end, energy = fields
            ended = end.isdigit()
            found[name] = {
                "submit_s": float(submit),
                "start_s": float(start),
                "end_s": float(end) if ended else None,
                # The figure of a running step is not its last one.
                "energy_j": float(energy)
                if ended and energy.isdigit() and int(energy) not in UNKNOWN
                else None,
            }
    return found


def _is_of(record: Mapping[str, Any], job: Answer) -> bool:
    """Whether a run began within a job. The clocks may differ by TOLERANCE_S."""
    started_s = datetime.fromisoformat(record["started_utc"]).timestamp()
    ended = job["end_s"] is None or started_s <= job["end_s"] + TOLERANCE_S
    return job["start_s"] - TOLERANCE_S <= started_s and ended
