"""What Snakemake shows on the terminal: a dry run's table; of a failed job its name, the reason, the end of its log.

Snakemake itself prints a dozen lines for every row and a hundred for a failure. Its file under .snakemake/log keeps
all of them. `--printshellcmds` (-p) or `--verbose` shows them here.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HANDLER = "DefaultStreamHandler"
# How many lines of a log, and characters of a reason, are shown.
LAST_LINES, LONGEST = 12, 200
# The command that failed, which the job's own error follows.
_COMMAND = "CalledProcessError in file"
_REMEDY = (
    "    What is finished stays. The same command tries it again; all that was said is in .snakemake/log."
)


def shorten(dryrun: bool) -> bool:
    """Show less on the terminal of this process. False where Snakemake does not write there itself."""
    from snakemake.logging import logger

    found = [handler for handler in logger.handlers if handler.name == HANDLER and handler.formatter]
    for handler in found:
        if not isinstance(handler.formatter, Shorter):
            handler.setFormatter(Shorter(handler.formatter))
            handler.addFilter(Fewer(dryrun))
    return bool(found)


def _event(record: logging.LogRecord) -> str:
    """The record's kind, such as job_info; empty where it has none."""
    return str(getattr(getattr(record, "event", None), "value", ""))


class Fewer(logging.Filter):
    """Leaves out each job of a dry run, the second copy of its table, and the command that failed."""

    def __init__(self, dryrun: bool):
        super().__init__()
        self.dryrun = dryrun
        self.told: object = None

    def filter(self, record: logging.LogRecord) -> bool:
        event = _event(record)
        if self.dryrun and event in ("job_info", "group_info", "workflow_started"):
            return False
        if self.dryrun and event == "run_info":
            again, self.told = self.told == record.msg, record.msg
            return not again
        return _COMMAND not in str(record.msg)


class Shorter(logging.Formatter):
    """Snakemake's formatter `whole`, with short reasons and errors."""

    def __init__(self, whole: logging.Formatter):
        super().__init__()
        self.whole = whole

    def format(self, record: logging.LogRecord) -> str:
        if _event(record) in _FAILURES:
            return "\n".join(_FAILURES[_event(record)](record.__dict__))
        text = self.whole.format(record)
        if _event(record) != "job_info":
            return text
        lines = text.split("\n")
        return "\n".join(line if len(line) <= LONGEST else line[:LONGEST] + " ..." for line in lines)


def of_job(job: Mapping[str, Any]) -> Iterator[str]:
    """Lines about a failed job: which one, what Snakemake or Slurm says, the end of its logs, and what to do."""
    name = Path(job["log"][0]).stem if job["log"] else job["rule_name"]
    which = "" if name == job["rule_name"] else f" {name}"
    known = ", ".join([f"job {job['jobid']}", *(f"{key} {value}" for key, value in job["aux"].items())])
    yield f"Error in rule {job['rule_name']}:{which} ({known})"
    if job["rule_msg"]:
        yield from (f"    {line}" for line in str(job["rule_msg"]).strip().splitlines())
    # Slurm's log is that of the Snakemake in the job: it is shown only where the rule's own log is empty.
    for ends in ([*_end_of(Path(log))] for log in job["log"]):
        yield from ends
        if len(ends) > 1:
            break
    if not job["indent"]:  # else one of a group
        yield _REMEDY


def of_group(group: Mapping[str, Any]) -> Iterator[str]:
    """Lines about a failed group. The lines about its jobs follow."""
    yield f"Error in group {group['groupid']} of {len(group['job_error_info'])} jobs"
    for log in group["aux_logs"]:
        yield from _end_of(Path(log))
    yield _REMEDY


def _end_of(log: Path) -> Iterator[str]:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    except OSError as error:
        yield f"    {log}: {error.strerror}"
        return
    left_out = len(lines) - LAST_LINES
    yield f"    {log}" + (
        f" (the last of its {len(lines)} lines):" if left_out > 0 else ":" if lines else " is empty"
    )
    yield from (f"    | {line}" for line in lines[-LAST_LINES:])


_FAILURES = {"job_error": of_job, "group_error": of_group}
