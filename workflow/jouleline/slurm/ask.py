"""One way to ask Slurm's tools, in an environment that changes neither what they answer nor how they print it.

Each tool reads variables of its own (SQUEUE_PARTITION hides jobs, SLURM_TIME_FORMAT rewrites times), and sbatch reads
the shape of a job (SBATCH_GPUS, SBATCH_ARRAY_INX). What a user sets for work at the prompt must not reach a campaign.
"""

import os
import subprocess
from collections.abc import Mapping, MutableMapping

TIMEOUT_S = 60
# Every variable with these beginnings changes what a tool answers or prints, or the shape of a job or step (srun reads
# SLURM_GPUS, SLURM_OVERLAP, SLURM_STDOUTMODE). Slurm sets a job's own anew.
PREFIXES = (
    *("SQUEUE_", "SACCT_", "SACCTMGR_", "SCANCEL_", "SCONTROL_", "SINFO_", "SSTAT_", "SPRIO_", "SSHARE_"),
    *("SRUN_", "SALLOC_", "SBATCH_", "SLURM_"),
)
# Where a job goes and who pays is the site's to say. Its shape, its time and how it is submitted are the row's.
KEPT = {
    *("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_CONSTRAINT"),
    *(
        "SBATCH_CLUSTERS",
        "SBATCH_CLUSTER_CONSTRAINT",
        "SBATCH_WCKEY",
        "SBATCH_NETWORK",
        "SBATCH_BURST_BUFFER",
    ),
    # Where Slurm is, by whom one is known to it, and which job this is.
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_CLUSTER_NAME", "SLURM_JWT"),
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_STEP_ID", "SLURM_NODELIST", "SLURM_NODEID", "SLURM_NNODES"),
}


def clean(environment: MutableMapping[str, str]) -> list[str]:
    """Take out of an environment what leads Slurm's tools astray; the names that were there, sorted.

    Every tool talks to the clusters that sbatch submits to.
    """
    found = sorted(name for name in environment if name.startswith(PREFIXES) and name not in KEPT)
    for name in found:
        del environment[name]
    if environment.get("SBATCH_CLUSTERS"):
        environment["SLURM_CLUSTERS"] = environment["SBATCH_CLUSTERS"]
    return found


def ask(*command: str, timeout_s: float | None = None, **more: str) -> str | None:
    """What one of Slurm's tools prints; None where it is missing, fails or takes longer than `timeout_s` seconds.

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
    """sacct alone does not read SLURM_CLUSTERS."""
    clusters = environment.get("SLURM_CLUSTERS")
    return [f"--clusters={clusters}"] if clusters and tool == "sacct" else []
