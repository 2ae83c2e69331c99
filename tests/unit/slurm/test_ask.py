"""What a user's environment may hold, and what Slurm's tools must not see of it."""

import pytest
from jouleline.slurm.ask import ask, clean

# Variables that the manuals of Slurm's tools name: each hides jobs, changes how answers are printed, or what is asked.
ASTRAY = """
SQUEUE_ACCOUNT SQUEUE_ALL SQUEUE_ARRAY SQUEUE_FEDERATION SQUEUE_FORMAT SQUEUE_FORMAT2 SQUEUE_LICENSES SQUEUE_LOCAL
SQUEUE_NAMES SQUEUE_PARTITION SQUEUE_PRIORITY SQUEUE_QOS SQUEUE_SIBLING SQUEUE_SORT SQUEUE_STATES SQUEUE_USERS
SACCT_FEDERATION SACCT_LOCAL SCANCEL_ACCOUNT SCANCEL_BATCH SCANCEL_INTERACTIVE SCANCEL_NAME SCANCEL_PARTITION
SCANCEL_STATE SCANCEL_USER SCONTROL_ALL SCONTROL_FEDERATION SCONTROL_LOCAL SINFO_FORMAT SINFO_PARTITION SINFO_SORT
SLURM_BITSTR_LEN SLURM_DEBUG_FLAGS SLURM_EXIT_ERROR SLURM_HINT SLURM_TIME_FORMAT SPRIO_FORMAT SSHARE_ALL
SBATCH_ARRAY_INX SBATCH_CPUS_PER_GPU SBATCH_DISTRIBUTION SBATCH_ERROR SBATCH_EXCLUSIVE SBATCH_GPUS
SBATCH_GPUS_PER_NODE SBATCH_GPUS_PER_TASK SBATCH_GRES SBATCH_HINT SBATCH_JOB_NAME SBATCH_MEM_PER_CPU
SBATCH_MEM_PER_GPU SBATCH_MEM_PER_NODE SBATCH_OVERCOMMIT SBATCH_REQUEUE SBATCH_SIGNAL SBATCH_SPREAD_JOB
SBATCH_THREADS_PER_CORE SBATCH_TIMELIMIT SBATCH_WAIT SRUN_CPUS_PER_TASK SRUN_OUTPUT SALLOC_GRES
"""
# Where a job goes and who pays; where Slurm is; what names a job.
STAY = """
SBATCH_ACCOUNT SBATCH_PARTITION SBATCH_QOS SBATCH_RESERVATION SBATCH_CONSTRAINT SBATCH_CLUSTERS SBATCH_WCKEY
SLURM_CONF SLURM_CLUSTERS SLURM_JOB_ID SLURM_STEP_ID SLURM_NODELIST PATH
"""


@pytest.fixture
def printenv(tmp_path, monkeypatch):
    """A squeue, a sacct and an scancel that print their environment and their options."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("squeue", "sacct", "scancel"):
        (tmp_path / name).write_text('#!/bin/sh\nenv; echo "options: $*"\n')
        (tmp_path / name).chmod(0o755)


@pytest.mark.parametrize("name", ASTRAY.split())
def test_no_tool_sees_it(printenv, monkeypatch, name):
    monkeypatch.setenv(name, "astray")
    assert "astray" not in ask("squeue")
    environment = {name: "astray", "HOME": "/home"}
    assert clean(environment) == [name] and environment == {"HOME": "/home"}


@pytest.mark.parametrize("name", STAY.split())
def test_what_says_where_and_for_whom_stays(name):
    environment = {name: "there"}
    assert clean(environment) == [] and environment[name] == "there"


def test_all_tools_ask_the_clusters_that_jobs_go_to(printenv, monkeypatch):
    monkeypatch.setenv("SBATCH_CLUSTERS", "far")
    monkeypatch.setenv("SLURM_CLUSTERS", "near")
    for tool in ("squeue", "scancel"):
        assert "SLURM_CLUSTERS=far\n" in ask(tool)
    assert "options: --clusters=far --jobs=7" in ask("sacct", "--jobs=7")


def test_a_tool_that_is_missing_or_fails_has_no_answer(printenv, tmp_path):
    assert ask("sinfo") is None
    (tmp_path / "squeue").write_text("#!/bin/sh\necho half an answer; exit 1\n")
    assert ask("squeue") is None


def test_a_name_that_is_no_utf8_is_no_traceback(printenv, tmp_path):
    (tmp_path / "squeue").write_text("#!/bin/sh\nprintf '7|\\377|x\\n'\n")
    assert ask("squeue").startswith("7|")
