from tests.slurm.fixtures import slurm, slurm_session  # noqa: F401
from tests.workflow.sbatch_lines import recorder  # noqa: F401
