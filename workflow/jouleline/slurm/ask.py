"""One way to ask Slurm's tools. Their environment then changes neither the answers nor the form in which they are
printed.

Each tool reads variables of its own (SQUEUE_PARTITION hides jobs, SLURM_TIME_FORMAT rewrites times). sbatch also reads
the shape of a job (SBATCH_GPUS, SBATCH_ARRAY_INX). Variables that a user sets for work at the prompt must not reach a
campaign.
"""

import os
import subprocess
from collections.abc import Mapping, MutableMapping

TIMEOUT_S = 60
# Every variable with one of these prefixes changes what a tool answers or prints, or the shape of a job or step (srun
# reads SLURM_GPUS, SLURM_OVERLAP, SLURM_STDOUTMODE). Slurm sets the variables of a job anew.
PREFIXES = (
    *("SQUEUE_", "SACCT_", "SACCTMGR_", "SCANCEL_", "SCONTROL_", "SINFO_", "SSTAT_", "SPRIO_", "SSHARE_"),
    *("SRUN_", "SALLOC_", "SBATCH_", "SLURM_"),
)
# The site decides where a job goes and who pays. The row decides its shape, its time and how it is submitted.
KEPT = {
    *("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_CONSTRAINT"),
    *(
        "SBATCH_CLUSTERS",
        "SBATCH_CLUSTER_CONSTRAINT",
        "SBATCH_WCKEY",
        "SBATCH_NETWORK",
        "SBATCH_BURST_BUFFER",
    ),
    # They say where Slurm is, how it knows the user, and which job this is.
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_CLUSTER_NAME", "SLURM_JWT"),
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_STEP_ID", "SLURM_NODELIST", "SLURM_NODEID", "SLURM_NNODES"),
}


def clean(environment: MutableMapping[str, str]) -> list[str]:
    """Remove from an environment the variables that mislead Slurm's tools. Returns the removed names, sorted.

    Every tool talks to the clusters that sbatch submits to.
    """
    found = sorted(name for name in environment if name.startswith(PREFIXES) and name not in KEPT)
    for name in found:
        del environment[name]
    if environment.get("SBATCH_CLUSTERS"):
        environment["SLURM_CLUSTERS"] = environment["SBATCH_CLUSTERS"]
    return found


def ask(*command: str, timeout_s: float | None = None, **more: str) -> str | None:
    """The output of one of Slurm's tools. None where it is missing, fails or takes longer than `timeout_s` seconds.

    `more` is added to the environment of the tool.
    """
    environment = dict(os.environ)
    clean(environment)
    command = (command[0], *_of_clusters(command[0], environment), *command[1:])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S if timeout_s is None else timeout_s,
            env=environment | more,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _of_clusters(tool: str, environment: Mapping[str, str]) -> list[str]:
    """Add the clusters for sacct, the only tool that does not read SLURM_CLUSTERS."""
    clusters = environment.get("SLURM_CLUSTERS")
    return [f"--clusters={clusters}"] if clusters and tool == "sacct" else []
