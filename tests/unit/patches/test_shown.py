"""What Snakemake shows on the terminal, by its own handler and events."""

import io
import logging

import pytest
from jouleline.patches import shown
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

JOB = {
    **{"rule_name": "measure_run", "rule_msg": None, "jobid": 7, "input": ["d.parquet"], "conda_env": None},
    **{
        "output": ["samples.parquet", "run.json"],
        "shellcmd": "python scripts/measure_run.py --row ...",
        "aux": {},
    },
    **{"indent": False, "event": LogEvent.JOB_ERROR},
}
COMMAND = "RuleException:\nCalledProcessError in file \"measure.smk\", line 37:\nCommand 'x' returned 3."


@pytest.fixture
def terminal(monkeypatch):
    """`terminal(dryrun)`: (a logger with a handler as Snakemake's, what it has written)."""

    def open_one(dryrun=False):
        logger, stream = logging.Logger("snakemake"), io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.name = shown.HANDLER
        handler.setFormatter(DefaultFormatter(None, True))
        logger.addHandler(handler)
        monkeypatch.setattr("snakemake.logging.logger", logger)
        assert shown.shorten(dryrun) and shown.shorten(dryrun)  # the Snakefile may be read twice
        return logger, stream

    return open_one


@pytest.mark.parametrize(("lines", "told"), [(61, "(the last of its 61 lines):"), (1, ":")])
def test_a_failure_is_its_row_why_and_the_end_of_its_log(terminal, tmp_path, lines, told):
    log = tmp_path / "bert-L1-r1.log"
    log.write_text(
        "".join(f"line {n}\n" for n in range(1, lines)) + "error: rank 0 was killed; kept in raw\n"
    )
    logger, stream = terminal()
    logger.error(COMMAND, extra={"event": LogEvent.ERROR})
    logger.error(
        "", extra=JOB | {"log": [str(log)], "rule_msg": "SLURM status: TIMEOUT", "aux": {"external_jobid": 9}}
    )
    said = stream.getvalue().splitlines()
    assert said[0] == "Error in rule measure_run: bert-L1-r1 (job 7, external_jobid 9)"
    assert said[1] == "    SLURM status: TIMEOUT" and said[2] == f"    {log}{' ' * (lines > 1)}{told}"
    assert said[-2] == "    | error: rank 0 was killed; kept in raw" and "tries it again" in said[-1]
    assert len(said) <= shown.LAST_LINES + 4


@pytest.mark.parametrize(
    ("make", "told"), [(lambda log: log.touch(), "is empty"), (lambda log: None, "No such file")]
)
def test_a_log_that_says_nothing(terminal, tmp_path, make, told):
    log = tmp_path / "measure_run.log"
    make(log)
    logger, stream = terminal()
    logger.error("", extra=JOB | {"log": [str(log)]})
    assert stream.getvalue().startswith("Error in rule measure_run: (job 7)\n") and told in stream.getvalue()


def test_slurms_log_is_shown_where_the_rules_own_says_nothing(terminal, tmp_path):
    own, of_slurm = tmp_path / "measure_run.log", tmp_path / "7.log"
    own.touch()
    of_slurm.write_text("slurmstepd: error: no such node\n")
    logger, stream = terminal()
    logger.error("", extra=JOB | {"log": [str(own), str(of_slurm)]})
    assert "| slurmstepd" in stream.getvalue()
    own.write_text("error: rank 0 was killed\n")
    logger.error("", extra=JOB | {"log": [str(own), str(of_slurm)]})
    assert stream.getvalue().count("| slurmstepd") == 1 and "| error: rank 0" in stream.getvalue()


def test_a_group_is_told_once_and_its_jobs_after_it(terminal, tmp_path):
    log = tmp_path / "group.log"
    log.write_text("slurmstepd: killed\n")
    logger, stream = terminal()
    group = {
        "groupid": "tables",
        "aux_logs": [str(log)],
        "job_error_info": [JOB],
        "event": LogEvent.GROUP_ERROR,
    }
    logger.error("", extra=group)
    logger.error("", extra=JOB | {"log": [], "indent": True})
    said = stream.getvalue()
    assert said.startswith("Error in group tables of 1 jobs\n") and "| slurmstepd: killed" in said
    assert said.count("tries it again") == 1 and "Error in rule measure_run: (job 7)" in said


def test_of_a_dry_run_the_table_is_shown_once(terminal):
    logger, stream = terminal(dryrun=True)
    for _ in range(2):
        logger.info("Job stats:\nall 1", extra={"event": LogEvent.RUN_INFO})
    logger.info("", extra={"event": LogEvent.JOB_INFO})
    logger.info("This was a dry-run")
    assert stream.getvalue() == "Job stats:\nall 1\nThis was a dry-run\n"


def test_a_long_reason_is_cut(terminal):
    logger, stream = terminal()
    job = {"rule_msg": "Fit roofline", "jobid": 1, "reason": "x" * 999, "event": LogEvent.JOB_INFO}
    logger.info("", extra=job)
    assert max(map(len, stream.getvalue().splitlines())) <= shown.LONGEST + 4
