from tests.slurm.fixtures import slurm, slurm_session  # noqa: F401
