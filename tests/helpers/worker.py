"""A worker of pytest-xdist, forked from a process that has imported what the tests import: worker.py -u -c PROGRAM."""

import sys

import forked

LIBRARIES = forked.Libraries(
    "workers",
    (
        *("pytest", "xdist.remote", "yaml", "jsonschema", "pydantic", "jinja2", "matplotlib.figure"),
        *("numpy", "scipy.stats", "scipy.optimize", "sklearn.ensemble", "pandas", "pyarrow.parquet"),
        *("torch.distributed", "transformers.models.auto.modeling_auto", "deepspeed", "snakemake.cli"),
    ),
    (("DS_ACCELERATOR", "cpu"),),  # without it DeepSpeed warns that it found none
)

if __name__ == "__main__":
    sys.exit(forked.Popen(LIBRARIES, [sys.executable, *sys.argv[2:]]).wait())
