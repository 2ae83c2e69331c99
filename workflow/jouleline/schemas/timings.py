"""The timings table: where the time of each measured job went, from the queue to its end."""

from jouleline.schemas import Column, Table

_C = Column

# In the order in which a job goes through them. Together they are the whole job, from its submission to its end.
PHASES = (
    _C("queue_s", "float64", "s", "In Slurm's queue: from submission to start"),
    _C(
        "snakemake_s",
        "float64",
        "s",
        "From the Slurm job's start to the run's program: prolog, Snakemake, srun",
    ),
    _C("python_s", "float64", "s", "The interpreter and what it imports before the agent's clock begins"),
    _C("imports_s", "float64", "s", "Import of torch, transformers and DeepSpeed"),
    _C("rendezvous_s", "float64", "s", "Nodes and ranks find each other, process groups are made"),
    _C("model_s", "float64", "s", "Data, model and DeepSpeed engine are built"),
    _C("wait_s", "float64", "s", "Wait for the device: for a neighbour's measurement, and to cool down"),
    _C("sidecar_s", "float64", "s", "Start of the sidecar, with the idle baseline before the run"),
    _C("warmup_s", "float64", "s", "Steps before the measured window"),
    _C("window_s", "float64", "s", "The measured window"),
    _C("evaluation_s", "float64", "s", "Evaluation after the window"),
    _C(
        "rest_s",
        "float64",
        "s",
        "What is left of the agent's time: idle baseline after the run, merging, saving",
    ),
    _C("after_s", "float64", "s", "From the agent's end to the Slurm job's: Snakemake, epilog"),
)

TIMINGS = Table(
    "timings",
    "One row per run with a record: where its job's time went. Null is not known: without Slurm, its phases.",
    (
        _C("run_id", "string", "", "Row id and replicate"),
        _C("status", "string", "", "ok, oom or failed"),
        *PHASES,
        _C("wall_s", "float64", "s", "The agent's time, from imports_s to rest_s"),
    ),
)
